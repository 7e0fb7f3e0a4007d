"""How far explanations can be moved while the prediction stays: what the tables of attacks on maps say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steadygrad.attributions import Saliency
from steadygrad.attributions.faithfulness import MEASURES, RANGES
from steadygrad.attributions.pixels import count_of
from steadygrad.attributions.similarity import SIMILARITIES
from steadygrad.audit.audit_plan import AuditPlan
from steadygrad.measuring.measures.map_attacks import MapAttacks, similarities
from steadygrad.measuring.measures.map_bounds import DISTANCES, KINDS, K
from steadygrad.measuring.measures.map_faithfulness import RandomizedLayers
from steadygrad.measuring.runner import Tables
from steadygrad.measuring.statistics import mean, quantile_intervals, share_of
from steadygrad.measuring.table import Array, Table
from steadygrad.registry import label_of

_ARRAYS = {
    "shown": "adversarial",
    "map_clean": "map_clean",
    "map_shown": "map_adversarial",
    "marks": "map_marks",
    "salience": "map_salience",
}
"""What the arrays of the pictures are called, by column."""


def explained(
    tables: Tables,
    models: Sequence[str],
    plan: AuditPlan,
    data: Mapping[str, Any],
    rows: Sequence[int] | None = None,
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The section `explained` of `summary.json`, and the arrays of its pictures.

    What a model or an attribution cannot do is written down in its place.

    Args:
        models: their names.
        data: `shape` of a sample, names of the `classes`, number of `samples`.
        rows: places of the samples of which the first ones are looked at, such as those that all models answer; or all.
    """
    eps = float(plan.eps if plan.explanation_eps is None else plan.explanation_eps)
    threat = plan.threat.at(eps)
    shape, places = data["shape"], tuple(range(data["samples"]) if rows is None else rows)[: plan.explanation_samples]
    count = len(places)
    pictured = len(shape) in (2, 3)
    pixels = math.prod(shape[1:] if len(shape) > 2 else shape)
    cost = {"steps": plan.explanation_steps, "restarts": plan.explanation_restarts, "draws": plan.explanation_draws}
    goals = MapAttacks(Saliency(), threat).goals(pictured)
    certify = np.arange(count) < plan.explanation_certified
    arrays: dict[str, Array] = {}
    said: dict[str, Any] = {}
    for index, name in enumerate(models):
        said[name] = {"beta": None, "attributions": []}
        for place, attribution in enumerate(plan.attributions):
            measure = MapAttacks(attribution, threat, **cost, beta=plan.explanation_beta)
            kept = places[: plan.gallery]
            table = tables.run(measure, name, rows=places, given={"certify": certify}, keep=kept)
            random = tables.run(RandomizedLayers(attribution), name, rows=places)
            row = {"name": label_of(attribution), **_row(table), "randomization": _randomization(random), "samples": []}
            if table.refused is None:
                if table["surrogate"].any():
                    said[name]["beta"] = plan.explanation_beta
                row["samples"] = _captions(table, goals, data["classes"], places)
                arrays |= _pictures(table, f"explained_{index}_{place}")
            said[name]["attributions"].append(row)
    plain = {
        "threat": plan.described(eps),
        "samples": count,
        "pixels": {"all": pixels, "top": count_of(K, pixels)},
        "goals": goals,
        **cost,
        "similarities": similarities(pictured),
        "models": said,
    }
    return plain, arrays


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
        "why": {kind: _why(table, kind) for kind in KINDS},
        "certain": {"mean": mean(certain).within(0.0, math.inf).plain(), "any": share_of(certain > 0).plain()}
        if len(certain)
        else None,
        "faithful": {
            measure: {of: mean(table[f"{measure}_{of}"]).within(*RANGES[measure]).plain() for of in ("map", "chance")}
            for measure in MEASURES
        }
        if "salience" in table
        else None,
        "passes": {way: float(table[way].mean()) for way in ("forwards", "backwards")},
    }


def _why(table: Table, kind: str) -> str | None:
    """Why there are no bounds of a kind; None where there are."""
    said = next((str(why) for why in table[f"why_{kind}"] if why), None)
    return said or ("asked for no sample" if np.isnan(table[f"deviation_euclidean_{kind}"]).all() else None)


def _randomization(table: Table) -> dict[str, Any]:
    """The similarity to the map of the trained model, as one layer more is random, from the output down."""
    layers = [name.removeprefix("after ") for name in table.columns if name.startswith("after ")]
    similarity = [_similarity(table[f"after {layer}"], "spearman") for layer in layers]
    return {"refused": table.refused, "layers": layers, "similarity": similarity}


def _similarity(values: Array, similarity: str) -> dict[str, Any]:
    """A mean with its interval, which ends where the similarity does."""
    return mean(values).within(*SIMILARITIES[similarity].range).plain()


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
            "ratio": quantile_intervals(ratio) if len(ratio) else None,
            "largest": float(ratio.max()) if len(ratio) else None,
            "points": int(table["points"][there].sum()),
            "over": int(table[f"over_{distance}_{kind}"].sum()),
        }
    return found


def _median(values: Array) -> Mapping[str, float | None]:
    return quantile_intervals(values, (0.5,))["0.5"]


def _finite(values: Array) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in values]


def _captions(
    table: Table, goals: Sequence[str], classes: Sequence[str], places: Sequence[int]
) -> list[dict[str, Any]]:
    """What is said about the samples that are shown."""
    return [
        {
            "index": places[i],
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
