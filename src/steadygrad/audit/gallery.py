"""The pictures of an audit: inputs, the very inputs that records counted, and maps of a few samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steadygrad.attacks import Attack
from steadygrad.attributions import Attribution
from steadygrad.measuring.measures.pictured import EveryTarget, Pictured
from steadygrad.measuring.runner import Tables
from steadygrad.measuring.table import Array, Table
from steadygrad.registry import label_of
from steadygrad.threat import Threat

_CHOICE = 5


@dataclass(frozen=True)
class Pictures:
    """Arrays for the page, and what is said below each picture."""

    arrays: dict[str, Array]
    captions: list[dict[str, Any]]


def candidates(labels: Sequence[int], count: int) -> list[int]:
    """Places of the samples among which `count` are chosen to be shown, classes in turn."""
    return sorted(spread(labels, _CHOICE * count, {}))


def spread(labels: Sequence[int], count: int, prefer: Mapping[int, bool]) -> list[int]:
    """Up to `count` places, one class after the other, preferred ones first."""
    chosen: list[int] = []
    order = sorted(range(len(labels)), key=lambda i: (not prefer.get(i, False), i))
    while order and len(chosen) < count:
        seen: set[int] = set()
        rest: list[int] = []
        for i in order:
            (rest if labels[i] in seen or len(chosen) >= count else chosen).append(i)
            seen.add(labels[i])
        order = rest
    return chosen


def pictures(
    tables: Tables,
    model: str,
    index: int,
    records: Table,
    attack: Attack,
    attributions: tuple[Attribution, ...],
    classes: Sequence[str],
    count: int,
) -> Pictures:
    """Pictures of samples of the records of an attack: those that it turned first, one class after the other."""
    kept = records.kept("input")
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
    return Pictures(arrays, captions)


def grid(
    tables: Tables, model: str, labels: Array, attack: Attack, threat: Threat, classes: Sequence[str], most: int = 10
) -> tuple[Array, dict[str, Any]] | None:
    """One sample of each class (rows) attacked towards every class (columns); None where a class has no sample."""
    count = min(most, len(classes))
    found = labels.tolist()
    if any(c not in found for c in range(count)):
        return None
    rows = tuple(found.index(c) for c in range(count))
    table = tables.run(EveryTarget(attack, threat, count), model, rows=rows)
    reached = table["success"].tolist()
    success = [[None if r == c else bool(reached[r][c]) for c in range(count)] for r in range(count)]
    about = {"model": model, "attack": f"{label_of(attack)}, targeted", "classes": list(classes[:count])}
    return np.asarray(table["pictures"]), {**about, "success": success}
