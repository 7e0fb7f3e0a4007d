"""Choosing the weights of the penalties on validation data, from the authors' grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from steadygrad.classifier import Classifier, frozen
from steadygrad.data import Dataset
from steadygrad.defenses import Defense, Plain
from steadygrad.papers.base import Request
from steadygrad.papers.lessons import Trained
from steadygrad.papers.ross2018.measures import FGSM_CE
from steadygrad.papers.ross2018.settings import GRIDS, Scale, Weights, defenses
from steadygrad.papers.store import Store
from steadygrad.threat import linf

__all__ = ["chosen", "searched"]

_EPS = 0.2
_IMAGES = 1000
_LOSS_ALLOWED = 0.01


def searched(
    train: Callable[[str, Defense], Trained],
    validation: Dataset,
    scale: Scale,
    store: Store,
    unit: float,
    request: Request,
) -> tuple[Weights, dict[str, Any], dict[str, float]]:
    """The weights with the best validation accuracy under FGSM among those that cost at most a point of clean accuracy.

    Returns them, the table of all candidates, and the seconds spent.
    """
    _, every = scale.search
    grid = {name: values[::every] for name, values in GRIDS.items()}
    seconds: dict[str, float] = {}
    plain = train("normal", Plain())
    seconds["search normal"] = plain.seconds
    clean, _ = _scores(plain.classifier, validation, unit, request.device)
    table: dict[str, Any] = {"eps": _EPS, "normal": clean, "candidates": {}}
    best: dict[str, float] = {}
    for name, values in grid.items():
        rows = []
        for weight in values:
            made = defenses(Weights(weight, weight, weight), unit)[name]
            found = train(f"{name}-{weight:.4g}", made)
            seconds[f"search {name}"] = seconds.get(f"search {name}", 0.0) + found.seconds
            accuracy, robust = _scores(found.classifier, validation, unit, request.device)
            rows.append({"weight": weight, "clean": accuracy, "fgsm": robust})
        best[name] = chosen(rows, clean)
        table["candidates"][name] = {"rows": rows, "chosen": best[name]}
    return Weights(best["doubleback"], best["insensitive"], best["both"]), table, seconds


def chosen(rows: list[dict[str, float]], clean: float) -> float:
    """The weight of the most robust row that loses at most a point; where all lose more, of the most accurate.

    >>> chosen([{"weight": 1, "clean": 0.99, "fgsm": 0.2}, {"weight": 9, "clean": 0.8, "fgsm": 0.9}], 0.99)
    1
    """
    good = [row for row in rows if row["clean"] >= clean - _LOSS_ALLOWED]
    if good:
        return max(good, key=lambda row: row["fgsm"])["weight"]
    return max(rows, key=lambda row: row["clean"])["weight"]


def _scores(model: Classifier, data: Dataset, unit: float, device: str) -> tuple[float, float]:
    x, y = (t.to(device) for t in data.batch(slice(0, _IMAGES)))
    points = FGSM_CE.perturb(model, x, y, linf(_EPS * unit))
    with frozen(model), torch.no_grad():
        clean, robust = (float((model(inputs).argmax(1) == y).float().mean()) for inputs in (x, points))
    return clean, robust
