"""The pictures of an audit: inputs, the very inputs that records counted, and maps of a few samples."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steadygrad.attacks import PGD, Attack
from steadygrad.attributions import Attribution
from steadygrad.audit.answers import NO_ANSWER
from steadygrad.measuring.measures.along_radius import AlongRadius
from steadygrad.measuring.measures.pictured import EveryTarget, Pictured
from steadygrad.measuring.runner import Tables
from steadygrad.measuring.table import Array, Kept, Table
from steadygrad.registry import label_of
from steadygrad.threat import Threat

_CHOICE = 5
_PREDICTED = ("clean_prediction", "prediction")


def candidates(labels: Sequence[int], count: int) -> list[int]:
    """Places of the samples among which `count` are chosen to be shown, classes in turn."""
    return sorted(spread(labels, _CHOICE * count, {}))


def spread(labels: Sequence[int], count: int, prefer: Mapping[int, bool]) -> list[int]:
    """Up to `count` places, one class after the other, preferred ones first."""
    order = sorted(range(len(labels)), key=lambda i: not prefer.get(i, False))
    before, turn = Counter[int](), {}
    for i in order:
        turn[i] = before[labels[i]]
        before[labels[i]] += 1
    return sorted(order, key=turn.__getitem__)[:count]


def pictures(
    tables: Tables,
    model: str,
    index: int,
    records: Table,
    attack: Attack,
    attributions: tuple[Attribution, ...],
    classes: Sequence[str],
    count: int,
) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """Captions and arrays of samples of an attack's records: those that it turned first, one class after the other.

    What has no answer, or none under the attack, has no map, and is not shown.
    """
    kept = records.kept("input")
    answered = np.array([min(records[name][i] for name in _PREDICTED) >= 0 for i in kept.rows], dtype=bool)
    kept = Kept(len(records), kept.rows[answered], kept.values[answered])
    if not len(kept.rows):
        return [], {}
    some = records.select(kept.rows)
    turned = some["success"] & (some["clean_prediction"] == some["label"])
    chosen = spread(some["label"].tolist(), count, dict(enumerate(turned.tolist())))
    rows = kept.rows[chosen]
    table = tables.run(Pictured(attributions), model, rows=tuple(rows.tolist()), given={"input": kept.values[chosen]})
    arrays = {f"{kind}_{index}": table[kind] for kind in ("clean", "adversarial")}
    for place in range(len(attributions)):
        for kind in ("clean", "adversarial"):
            arrays[f"map_{kind}_{index}_{place}"] = table[f"map_{kind}_{place}"]
    shown = records.select(rows)
    captions = [
        {
            "index": int(rows[i]),
            "id": str(shown["sample"][i]),
            "label": classes[int(shown["label"][i])],
            "clean_prediction": classes[int(shown["clean_prediction"][i])],
            "clean_confidence": float(shown["clean_confidence"][i]),
            "adversarial_prediction": classes[int(shown["prediction"][i])],
            "adversarial_confidence": float(shown["confidence"][i]),
            "distance": float(shown["distance"][i]) if shown["success"][i] else None,
            "attack": label_of(attack),
        }
        for i in range(len(rows))
    ]
    return captions, arrays


def steps(
    tables: Tables,
    model: str,
    index: int,
    measure: AlongRadius,
    captions: Sequence[dict[str, Any]],
    classes: Sequence[str],
) -> dict[str, Array]:
    """The arrays of pictured samples at several radii, which their captions tell as well; nothing where refused."""
    if not captions:
        return {}
    table = tables.run(measure, model, rows=tuple(caption["index"] for caption in captions))
    if table.refused is not None:
        return {}
    for row, caption in enumerate(captions):
        said = zip(measure.radii, table["prediction"][row].tolist(), table["confidence"][row].tolist(), strict=True)
        caption["steps"] = [
            {"eps": eps, "prediction": NO_ANSWER if k < 0 else classes[k], "confidence": 0.0 if k < 0 else sure}
            for eps, k, sure in said
        ]
    arrays = {f"along_{index}": table["input"]}
    return arrays | {f"along_map_{index}_{place}": table[f"map_{place}"] for place in range(len(measure.attributions))}


def grid(
    tables: Tables,
    model: str,
    labels: Sequence[int],
    attack: Attack,
    threat: Threat,
    classes: Sequence[str],
    most: int = 10,
    places: Sequence[int] | None = None,
) -> tuple[dict[str, Any] | None, dict[str, Array]]:
    """One sample of each class (rows) attacked towards every class (columns); nothing where a class has no sample.

    Args:
        places: of the samples among which is chosen; None for all.
    """
    count = min(most, len(classes))
    first = {labels[place]: place for place in reversed(range(len(labels)) if places is None else places)}
    if not set(range(count)) <= set(first):
        return None, {}
    rows = tuple(first[c] for c in range(count))
    if isinstance(attack, PGD):  # pictures, which are no numbers, need no second try
        attack = dataclasses.replace(attack, restarts=1)
    table = tables.run(EveryTarget(attack, threat, count), model, rows=rows)
    reached = table["success"].tolist()
    success = [[None if r == c else bool(reached[r][c]) for c in range(count)] for r in range(count)]
    about = {"model": model, "attack": f"{label_of(attack)}, targeted", "classes": list(classes[:count])}
    return {**about, "success": success}, {"grid": table["pictures"]}
