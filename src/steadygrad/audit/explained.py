"""How far explanations can be moved while the prediction stays: what the tables of attacks on maps say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from steadygrad.attributions import Attribution, Saliency
from steadygrad.attributions.faithfulness import MEASURES, RANGES
from steadygrad.attributions.pixels import count_of
from steadygrad.attributions.similarity import SIMILARITIES
from steadygrad.errors import UsageError
from steadygrad.measuring.measures.map_attacks import MapAttacks, similarities
from steadygrad.measuring.measures.map_bounds import DISTANCES, KINDS, K
from steadygrad.measuring.measures.randomization import RandomizedLayers
from steadygrad.measuring.runner import Tables
from steadygrad.measuring.statistics import mean, quantile_intervals, share_of
from steadygrad.measuring.table import Array, Table
from steadygrad.registry import label_of
from steadygrad.threat import Threat

__all__ = ["Explaining", "Section", "explained"]

LEVELS = (0.05, 0.5, 0.95)
_ARRAYS = {
    "shown": "adversarial",
    "map_clean": "map_clean",
    "map_shown": "map_adversarial",
    "marks": "map_marks",
    "salience": "map_salience",
}
"""What the arrays of the pictures are called, by column."""


@dataclass(frozen=True)
class Explaining:
    """What an audit of explanations may cost, and what it assumes.

    Args:
        samples: the first so many samples of the data.
        certified: of these, the first so many get certified bounds too, which cost most.
        eps: the radius of the changes; None for that of the audit.
        steps, restarts: of each attack.
        draws: random points beside each attack.
        beta: of the softplus that stands in for the rectifiers of a network.

    >>> Explaining(samples=10).steps
    20
    """

    samples: int = 20
    certified: int = 10
    eps: float | None = None
    steps: int = 20
    restarts: int = 2
    draws: int = 10
    beta: float = 50.0

    def __post_init__(self) -> None:
        for name in ("samples", "steps", "restarts", "draws"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} of explanations must be at least 1, got {getattr(self, name)}")
        if self.certified < 0:
            raise UsageError(f"certified samples of explanations must be at least 0, got {self.certified}")
        for name in ("eps", "beta"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name} of explanations must be positive and finite, got {value}")

    def within(self, threat: Threat) -> Threat:
        """The threat of the explanations, from that of the audit."""
        if threat.norm not in ("linf", "l2"):
            raise UsageError(f"explanations are attacked and bounded within linf or l2, not within {threat.norm}")
        return threat if self.eps is None else threat.at(self.eps)

    def measure(self, attribution: Attribution, threat: Threat) -> MapAttacks:
        """What is written down for each sample, within the threat of the explanations."""
        return MapAttacks(attribution, threat, self.steps, self.restarts, self.draws, self.beta)


class Section(NamedTuple):
    """What was found: plain data for `summary.json`, and the arrays of the pictures by name."""

    plain: dict[str, Any]
    arrays: dict[str, Array]


def explained(
    tables: Tables,
    models: Sequence[str],
    attributions: Sequence[Attribution],
    threat: Threat,
    settings: Explaining,
    data: Mapping[str, Any],
    pictures: int = 6,
) -> Section:
    """The section `explained` of `summary.json`, and the arrays of its pictures.

    Args:
        models: their names.
        threat: that of the audit; the settings may have a radius of their own.
        data: `shape` of a sample, names of the `classes`, number of `samples`.
        pictures: so many samples are shown, the first ones.

    Raises:
        UsageError: a norm other than linf and l2. What a model or an attribution cannot do is written down in
            its place instead.
    """
    threat, shape, count = settings.within(threat), data["shape"], min(settings.samples, data["samples"])
    pictured = len(shape) in (2, 3)
    pixels = math.prod(shape[1:] if len(shape) == 3 else shape)
    goals = settings.measure(Saliency(), threat).goals(pictured)
    certify = np.arange(count) < settings.certified
    arrays: dict[str, Array] = {}
    rows: dict[str, Any] = {}
    for index, name in enumerate(models):
        rows[name] = {"beta": None, "attributions": []}
        for place, attribution in enumerate(attributions):
            table = tables.run(
                settings.measure(attribution, threat), name,
                rows=range(count), given={"certify": certify}, keep=range(min(pictures, count)),
            )  # fmt: skip
            random = tables.run(RandomizedLayers(attribution), name, rows=range(count))
            row = {"name": label_of(attribution), **_row(table), "randomization": _randomization(random), "samples": []}
            if table.refused is None:
                if table["surrogate"].any():
                    rows[name]["beta"] = settings.beta
                row["samples"] = _captions(table, goals, data["classes"])
                arrays |= _pictures(table, f"explained_{index}_{place}")
            rows[name]["attributions"].append(row)
    plain = {
        "threat": {"norm": threat.norm, "eps": float(threat.eps), "bounds": list(threat.bounds)},  # type: ignore[arg-type]
        "samples": count,
        "pixels": {"all": pixels, "top": count_of(K, pixels)},
        "goals": goals,
        **{name: getattr(settings, name) for name in ("steps", "restarts", "draws")},
        "similarities": similarities(pictured),
        "models": rows,
    }
    return Section(plain, arrays)


def _row(table: Table) -> dict[str, Any]:
    """What the table of one model and attribution says, with intervals."""
    if table.refused is not None:
        return {"refused": table.refused}
    own = bool(table["surrogate"].any())
    ways = ("attack", "noise", *(("own_attack", "own_noise") if own else ()))
    similar = [name for name in SIMILARITIES if f"similarity_{name}_attack" in table]
    certain = table["certain"][~np.isnan(table["certain"])]
    return {
        "refused": None,
        "similarity": {s: {way: _similarity(table[f"similarity_{s}_{way}"], s) for way in ways} for s in similar},
        "moved": {
            way: share_of(table[f"similarity_top_k_intersection_{way}"] < 1).plain() for way in ("attack", "noise")
        },
        "surrogate": {
            "same_prediction": share_of(table["own_prediction"] == table["prediction"]).plain(),
            "alike": _similarity(table["own_alike"], "top_k_intersection"),
        }
        if own
        else None,
        "points": int(table["points"].sum()),
        "deviation": {distance: _deviation(table, distance) for distance in DISTANCES},
        "why": {kind: next((str(w) for w in table[f"why_{kind}"] if w), None) for kind in KINDS},
        "certain": {"mean": _within(certain, 0.0, math.inf), "any": share_of(certain > 0).plain()}
        if len(certain)
        else None,
        "faithful": {
            measure: {of: _within(table[f"{measure}_{of}"], *RANGES[measure]) for of in ("map", "chance")}
            for measure in MEASURES
        }
        if "salience" in table
        else None,
        "passes": {way: float(table[way].mean()) for way in ("forwards", "backwards")},
    }


def _randomization(table: Table) -> dict[str, Any]:
    """The similarity to the map of the trained model, as one layer more is random, from the output down."""
    layers = [name.removeprefix("after ") for name in table.columns if name.startswith("after ")]
    similarity = [_similarity(table[f"after {layer}"], "spearman") for layer in layers]
    return {"refused": table.refused, "layers": layers, "similarity": similarity}


def _similarity(values: Array, similarity: str) -> dict[str, Any]:
    """A mean with its interval, which ends where the similarity does."""
    return _within(values, *SIMILARITIES[similarity].range)


def _within(values: Array, low: float, high: float) -> dict[str, Any]:
    found = mean(values).plain()
    return {**found, "low": max(low, found["low"]), "high": min(high, found["high"])}


def _deviation(table: Table, distance: str) -> dict[str, Any]:
    attack = table[f"deviation_{distance}_attack"]
    found: dict[str, Any] = {"attack": _median(attack), "values": {"attack": _finite(attack)}}
    for kind in KINDS:
        upper = table[f"deviation_{distance}_{kind}"]
        there = ~np.isnan(upper)
        if not there.any():
            found[kind] = None
            continue
        found["values"][kind] = _finite(upper)
        ratio = attack[upper > 0] / upper[upper > 0]
        found[kind] = {
            "bound": _median(upper[there]),
            "count": int(there.sum()),
            "ratio": quantile_intervals(ratio, LEVELS) if len(ratio) else None,
            "largest": float(ratio.max()) if len(ratio) else None,
            "points": int(table["points"][there].sum()),
            "over": int(table[f"over_{distance}_{kind}"].sum()),
        }
    return found


def _median(values: Array) -> Mapping[str, float | None]:
    return quantile_intervals(values, (0.5,))["0.5"]


def _finite(values: Array) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in values]


def _captions(table: Table, goals: Sequence[str], classes: Sequence[str]) -> list[dict[str, Any]]:
    """What is said about the samples that are shown."""
    return [
        {
            "index": i,
            "id": str(table["sample"][i]),
            "label": classes[int(table["label"][i])],
            "prediction": classes[int(table["prediction"][i])],
            "clean_confidence": float(table["confidence"][i]),
            "adversarial_confidence": float(table["shown_confidence"][i]),
            "certain": None if math.isnan(table["certain"][i]) else int(table["certain"][i]),
            "goal": goals[int(table["by"][i])],
        }
        for i in table.kept("marks").rows.tolist()
    ]


def _pictures(table: Table, name: str) -> dict[str, Array]:
    """The arrays of one model and attribution; the clean inputs are the same for all."""
    if not len(table.kept("clean").rows):
        return {}
    named = {"clean": "clean_explained"} | {column: f"{title}_{name}" for column, title in _ARRAYS.items()}
    return {title: table.kept(column).values.astype(np.float32) for column, title in named.items() if column in table}
