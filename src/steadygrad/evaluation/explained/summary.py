"""The step of an audit that pushes explanations: its part of `summary.json`, its records and its pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from steadygrad.attributions import Attribution, Saliency
from steadygrad.attributions.pixels import count_of
from steadygrad.attributions.similarity import SIMILARITIES
from steadygrad.evaluation.columns import Columns
from steadygrad.evaluation.explained.bounds import DISTANCES, KINDS
from steadygrad.evaluation.explained.push import PICTURES, Push
from steadygrad.evaluation.explained.settings import Explaining, K, attacks_on, measures, subject_of
from steadygrad.evaluation.faithfulness import MEASURES, RANGES
from steadygrad.evaluation.gallery import image_array, plane_of
from steadygrad.evaluation.robustness import Bench
from steadygrad.evaluation.statistics import mean, quantile_intervals, wilson
from steadygrad.files import atomic
from steadygrad.registry import label_of
from steadygrad.threat import Threat

__all__ = ["Explained", "explain"]

LEVELS = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Explained:
    """What was found: plain data for `summary.json`, arrays for `gallery.npz`, one record per sample."""

    plain: dict[str, Any]
    arrays: Columns
    records: list[dict[str, Any]]

    def write(self, path: Path) -> None:
        """Write the records as a Parquet file, whole or not at all."""
        import pandas as pd

        with atomic(path) as temporary:
            pd.DataFrame(self.records).to_parquet(temporary, index=False)


def explain(
    bench: Bench,
    models: Mapping[str, nn.Module],
    attributions: Sequence[Attribution],
    threat: Threat,
    settings: Explaining,
    pictures: int = 6,
) -> Explained:
    """Push the maps of every model by every attribution, on the first samples of a bench; in cells.

    Args:
        threat: that of the audit; the settings may have a radius of their own.
        pictures: so many samples are shown, the first ones.

    Raises:
        UsageError: a norm other than linf and l2. What a model or an attribution cannot do is written down in
            its place instead.
    """
    threat = settings.within(threat)
    count = min(settings.samples, len(bench.data))
    x, _, ids = next(iter(bench.batches(0, min(8, count))))
    arrays: Columns = {}
    if pictures:
        arrays["clean_explained"] = image_array(bench.data.batch(slice(0, min(pictures, count)))[0])
    rows: dict[str, Any] = {}
    records: list[dict[str, Any]] = []
    for index, (name, model) in enumerate(models.items()):
        subject = subject_of(model, x, bench.seeds({}, ids), settings.beta)
        rows[name] = {"beta": settings.beta if subject is not model else None, "attributions": []}
        for place, attribution in enumerate(attributions):
            push = Push(bench, name, model, subject, attribution, threat, settings, pictures)
            columns = push.columns(count)
            records += push.records(columns)
            rows[name]["attributions"].append({"name": label_of(attribution), **_row(columns), "samples": []})
            if "why" not in columns and pictures:
                rows[name]["attributions"][-1]["samples"] = push.captions(columns)
                arrays |= _drawn(columns, f"explained_{index}_{place}", x.shape[1:], plane_of(x))
    pictured = x.ndim in (3, 4)
    pixels = math.prod(plane_of(x))
    plain = {
        "threat": {"norm": threat.norm, "eps": float(threat.eps), "bounds": list(threat.bounds)},  # type: ignore[arg-type]
        "samples": count,
        "pixels": {"all": pixels, "top": count_of(K, pixels)},
        "goals": [attack.objective for attack in attacks_on(Saliency(), settings, pictured)],
        **{name: getattr(settings, name) for name in ("steps", "restarts", "draws")},
        "similarities": measures(pictured),
        "models": rows,
    }
    return Explained(plain, arrays, records)


def _row(columns: Columns) -> dict[str, Any]:
    """What the columns of one model and attribution say, with intervals."""
    if "why" in columns:
        return {"refused": str(columns["why"][0])}
    count = len(columns["prediction"])
    own = "own_prediction" in columns
    ways = ("attack", "noise", *(("own_attack", "own_noise") if own else ()))
    similar = [name for name in SIMILARITIES if f"similarity_{name}_attack" in columns]
    certain = columns["certain"][~np.isnan(columns["certain"])]
    return {
        "refused": None,
        "similarity": {s: {way: _mean(columns[f"similarity_{s}_{way}"], s) for way in ways} for s in similar},
        "moved": {
            way: wilson(int((columns[f"similarity_top_k_intersection_{way}"] < 1).sum()), count).plain()
            for way in ("attack", "noise")
        },
        "surrogate": {
            "same_prediction": wilson(int((columns["own_prediction"] == columns["prediction"]).sum()), count).plain(),
            "alike": _mean(columns["own_alike"], "top_k_intersection"),
        }
        if own
        else None,
        "points": int(columns["points"].sum()),
        "deviation": {distance: _deviation(columns, distance) for distance in DISTANCES},
        "why": {kind: next((str(w) for w in columns[f"why_{kind}"] if w), None) for kind in KINDS},
        "certain": _certain(certain) if len(certain) else None,
        "faithful": _faithful(columns) if "salience" in columns else None,
        "passes": {way: float(columns[way].mean()) for way in ("forwards", "backwards")},
    }


def _faithful(columns: Columns) -> dict[str, Any]:
    return {
        measure: {of: _within(columns[f"{measure}_{of}"], *RANGES[measure]) for of in ("map", "chance")}
        for measure in MEASURES
    }


def _certain(counts: NDArray[np.float64]) -> dict[str, Any]:
    return {"mean": _within(counts, 0.0, math.inf), "any": wilson(int((counts > 0).sum()), len(counts)).plain()}


def _mean(values: NDArray[np.float64], similarity: str) -> dict[str, Any]:
    """A mean with its interval, which ends where the similarity does."""
    return _within(values, *SIMILARITIES[similarity].range)


def _within(values: NDArray[np.float64], low: float, high: float) -> dict[str, Any]:
    found = mean(values).plain()
    return {**found, "low": max(low, found["low"]), "high": min(high, found["high"])}


def _deviation(columns: Columns, distance: str) -> dict[str, Any]:
    attack = columns[f"deviation_{distance}_attack"]
    found: dict[str, Any] = {"attack": _median(attack), "values": {"attack": _finite(attack)}}
    for kind in KINDS:
        upper = columns[f"deviation_{distance}_{kind}"]
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
            "points": int(columns["points"][there].sum()),
            "over": int(columns[f"over_{distance}_{kind}"].sum()),
        }
    return found


def _median(values: NDArray[np.float64]) -> dict[str, float | None]:
    return quantile_intervals(values, (0.5,))["0.5"]


def _finite(values: NDArray[np.float64]) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in values]


def _drawn(columns: Columns, name: str, shape: Sequence[int], plane: tuple[int, int]) -> Columns:
    names = ("adversarial", "map_clean", "map_adversarial", "map_marks", "map_salience")
    titles = {kind: title for kind, title in zip(PICTURES, names, strict=True) if kind in columns}
    image = tuple(shape) if len(shape) == 3 else (1, *plane)
    return {
        f"{title}_{name}": columns[kind].reshape(-1, *(image if kind == "shown" else plane)).astype(np.float32)
        for kind, title in titles.items()
    }
