"""Sigma-zero for one sample, from Cinà et al. 2025 (algorithm 1) with Adam written out.

The package departs from the paper in one place: the margin is measured in units of the clean input's own.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]


def _loss(
    model: nn.Module, x: Array, change: Array, y: int, target: int | None, unit: float, sigma: float
) -> tuple[Array, float]:
    """The gradient of hinge(margin) / unit + mean d^2 / (d^2 + sigma), and the margin by which the point is right."""
    delta = torch.from_numpy(change).requires_grad_()
    z = model((torch.from_numpy(x) + delta)[None])[0]
    label = y if target is None else target
    other = torch.stack([z[k] for k in range(len(z)) if k != label]).max()
    right = z[label] - other if target is None else other - z[label]
    count = (delta**2 / (delta**2 + sigma)).mean()
    (slope,) = torch.autograd.grad(right.clamp(min=0) / unit + count, delta)
    return slope.numpy(), right.item()


def attack(
    model: nn.Module, x: Array, y: int, target: int | None = None, *, steps: int, sigma: float = 1e-3
) -> tuple[float, Array]:
    """The smallest number of changed entries seen at a wrong point, and the point; inputs within [0, 1]."""
    change, m, v = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    best, found, eta, tau = math.inf, x, 1.0, 0.3
    unit = abs(_loss(model, x, change, y, target, 1.0, sigma)[1])
    for k in range(steps + 1):
        slope, right = _loss(model, x, change, y, target, unit, sigma)
        if right < 0 and np.count_nonzero(change) < best:
            best, found = np.count_nonzero(change), x + change
        slope = slope / np.abs(slope).max()
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        change = change - eta * (m / (1 - 0.9 ** (k + 1))) / (np.sqrt(v / (1 - 0.999 ** (k + 1))) + 1e-8)
        change = (x + change).clip(0, 1) - x
        eta = 0.1 + 0.9 * (1 + math.cos(math.pi * k / steps)) / 2
        tau = min(1.0, max(0.0, tau + (0.01 if right < 0 else -0.01) * eta))
        change = np.where(np.abs(change) < tau, 0.0, change)
    return best, found
