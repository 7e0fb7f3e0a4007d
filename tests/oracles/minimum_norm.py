"""DDN (Rony et al. 2019, algorithm 1) and FMN (Pintor et al. 2021, algorithm 1) for one sample.

FMN departs from its paper in three places that the package states: a wrong point shrinks the smaller
of radius and nearest size, the estimate of the boundary is never nearer than `least`, and l0 starts from
that estimate, too, in whole entries.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]
ORDER = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}


def _look(model: nn.Module, point: Array, y: int, target: int | None, loss: str) -> tuple[float, Array, bool]:
    """How right the prediction still is, the slope of the loss, and whether the point is wrong."""
    leaf = torch.from_numpy(point)[None].requires_grad_()
    z = model(leaf)
    label = y if target is None else target
    others = torch.tensor([k for k in range(z.shape[1]) if k != label])
    gap = z[0, label] - z[0, others].max()
    gap = gap if target is None else -gap
    value = -gap
    if loss == "ce":
        value = F.cross_entropy(z, torch.tensor([label])) * (1 if target is None else -1)
    (slope,) = torch.autograd.grad(value, leaf)
    return gap.item(), slope[0].numpy(), gap.item() < 0


def _cosine(start: float, end: float, k: int, steps: int) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * k / steps))


def _size(delta: Array, norm: str) -> float:
    return float(np.linalg.norm(delta, ORDER[norm]))


def _unit(delta: Array) -> Array:
    size = np.linalg.norm(delta)
    return delta / size if size > 0 else delta


def ddn(
    model: nn.Module,
    x: Array,
    y: int,
    target: int | None = None,
    *,
    steps: int,
    alpha: float = 1.0,
    gamma: float = 0.05,
    radius: float = 1.0,
    loss: str = "ce",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, Array]:
    """The smallest size seen at a wrong point, and the point; a model of flat inputs (N, D)."""
    best, found, delta = math.inf, x, np.zeros_like(x)
    for k in range(steps + 1):
        _, slope, wrong = _look(model, x + delta, y, target, loss)
        if wrong and _size(delta, "l2") < best:
            best, found = _size(delta, "l2"), x + delta
        radius *= 1 - gamma if wrong else 1 + gamma
        delta = delta + _cosine(alpha, 0.01 * alpha, k, steps) * _unit(slope)
        delta = (x + radius * _unit(delta)).clip(*bounds) - x
    return best, found


def project(delta: Array, radius: float, norm: str) -> Array:
    """The nearest change within the radius; l1 by halving the threshold."""
    if norm == "linf":
        return delta.clip(-radius, radius)
    if norm == "l2":
        return delta * min(1.0, radius / max(_size(delta, norm), 1e-300))
    if norm == "l0":
        kept = np.argsort(-np.abs(delta), kind="stable")[: int(radius)]
        out = np.zeros_like(delta)
        out[kept] = delta[kept]
        return out
    if np.abs(delta).sum() <= radius:
        return delta
    low, high = 0.0, float(np.abs(delta).max())
    for _ in range(200):
        middle = (low + high) / 2
        inside = (np.abs(delta) - middle).clip(0).sum() <= radius
        low, high = (low, middle) if inside else (middle, high)
    return np.sign(delta) * (np.abs(delta) - high).clip(0)


def fmn(
    model: nn.Module,
    x: Array,
    y: int,
    norm: str,
    target: int | None = None,
    *,
    steps: int,
    alpha: float = 1.0,
    last: float = 1e-5,
    gamma: float = 0.05,
    gamma_last: float = 1e-3,
    loss: str = "margin",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, Array]:
    """The smallest size seen at a wrong point, and the point; a model of flat inputs (N, D)."""
    best, found, radius, delta = math.inf, x, math.inf, np.zeros_like(x)
    width = bounds[1] - bounds[0]
    for k in range(steps + 1):
        gap, slope, wrong = _look(model, x + delta, y, target, loss)
        if wrong and _size(delta, norm) < best:
            best, found = _size(delta, norm), x + delta
        share = _cosine(gamma, gamma_last, k, steps)
        if norm == "l0":
            ahead = max(1, math.ceil(gap / (np.abs(slope).max() * width)))
            up, down = max(radius + 1, radius * (1 + share) // 1), max(1, min(best - 1, radius * (1 - share) // 1))
        else:
            dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
            ahead = max(1e-6 * width, gap / np.linalg.norm(slope, dual))
            up, down = radius * (1 + share), min(radius, best) * (1 - share)
        radius = down if wrong else up if math.isfinite(best) else _size(delta, norm) + ahead
        delta = delta + _cosine(alpha, last, k, steps) * _unit(slope)
        delta = (x + project(delta, radius, norm)).clip(*bounds) - x
    return best, found
