"""The l2 attack of Carlini and Wagner 2017 for one sample: tanh variables, Adam, a bisected constant."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]


def _margin(model: nn.Module, point: Array, y: int) -> tuple[float, Array]:
    leaf = torch.from_numpy(point)[None].requires_grad_()
    logits = model(leaf)[0]
    other = max((k for k in range(len(logits)) if k != y), key=logits.tolist().__getitem__)
    value = logits[other] - logits[y]
    return value.item(), torch.autograd.grad(value, leaf)[0][0].numpy()


def smallest(
    model: nn.Module, x: Array, y: int, *, search_steps: int = 5, steps: int = 1000, lr: float = 0.01, constant: float
) -> float:
    """The l2 length of the smallest change found, infinite if there is none."""
    best, low, high = math.inf, 0.0, math.inf
    for _ in range(search_steps):
        w = np.arctanh((2 * x - 1) * 0.999999)
        mean, square, found = np.zeros_like(w), np.zeros_like(w), False
        for i in range(1, steps + 1):
            point = (np.tanh(w) + 1) / 2
            value, slope = _margin(model, point, y)
            size = float(np.sqrt(((point - x) ** 2).sum()))
            if value > 0:
                found, best = True, min(best, size)
            gradient = 2 * (point - x) - (constant * slope if value < 0 else 0)
            gradient = gradient * (1 - np.tanh(w) ** 2) / 2
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            w = w - lr * (mean / (1 - 0.9**i)) / (np.sqrt(square / (1 - 0.999**i)) + 1e-8)
        low, high = (low, constant) if found else (constant, high)
        constant = (low + high) / 2 if math.isfinite(high) else 10 * constant
    return best
