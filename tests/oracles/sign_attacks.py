"""FGSM, BIM and PGD for one sample at a time, from the formulas of Goodfellow 2015, Kurakin 2017 and Madry 2018."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]


def margin(logits: Array, y: int, target: int | None = None) -> float:
    """Best other logit minus the label's, or the target's minus the best other."""
    label = y if target is None else target
    best = max(float(z) for k, z in enumerate(logits) if k != label)
    return best - float(logits[label]) if target is None else float(logits[label]) - best


def _slope(model: nn.Module, x: Array, y: int, target: int | None) -> Array:
    leaf = torch.from_numpy(x)[None].requires_grad_()
    logits = model(leaf)[0]
    label = y if target is None else target
    other = max((k for k in range(len(logits)) if k != label), key=logits.tolist().__getitem__)
    value = logits[other] - logits[label] if target is None else logits[label] - logits[other]
    return torch.autograd.grad(value, leaf)[0][0].numpy()


def _step(x: Array, point: Array, slope: Array, length: float, eps: float, norm: str) -> Array:
    if norm == "linf":
        return np.clip(np.clip(point + length * np.sign(slope), x - eps, x + eps), 0, 1)
    size = float(np.sqrt((slope * slope).sum()))
    delta = point + length * slope / size - x if size > 0 else point - x
    size = float(np.sqrt((delta * delta).sum()))
    return np.clip(x + (delta * eps / size if size > eps else delta), 0, 1)


def climb(
    model: nn.Module,
    x: Array,
    y: int,
    start: Array,
    eps: float,
    norm: str,
    lengths: Sequence[float],
    target: int | None,
) -> list[Array]:
    """All points visited from `start` with steps of the given lengths (in radii)."""
    points = [start]
    for length in lengths:
        slope = _slope(model, points[-1], y, target)
        points.append(_step(x, points[-1], slope, length * eps, eps, norm))
    return points


def wrong(model: nn.Module, points: Sequence[Array], y: int, target: int | None) -> bool:
    """Whether any of the points has a margin above zero."""
    with torch.no_grad():
        rows = [model(torch.from_numpy(p)[None])[0].numpy() for p in points]
    return any(margin(row, y, target) > 0 for row in rows)
