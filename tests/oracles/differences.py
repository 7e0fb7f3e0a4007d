"""Derivatives from values alone: central differences in float64, entry by entry."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEP = 1e-5


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor, step: float = STEP) -> Tensor:
    """(N, K, *) for a function from (N, *) to (N, K) whose samples are independent."""
    columns = []
    with torch.no_grad():
        for index in range(x[0].numel()):
            shift = torch.zeros_like(x).flatten(1)
            shift[:, index] = step
            shift = shift.view_as(x)
            columns.append((function(x + shift) - function(x - shift)) / (2 * step))
    stacked = torch.stack(columns, -1)  # (N, K, D)
    return stacked.view(*stacked.shape[:2], *x.shape[1:])


def gradient(scalar: Callable[[Tensor], Tensor], x: Tensor, step: float = STEP) -> Tensor:
    """(N, *) for a function from (N, *) to (N,)."""
    return jacobian(lambda inputs: scalar(inputs)[:, None], x, step)[:, 0]


def hessian(scalar: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-4) -> Tensor:
    """(N, D, D) from second differences of values."""
    entries = x[0].numel()
    flat = x.flatten(1)
    out = torch.zeros(len(x), entries, entries, dtype=x.dtype)
    unit = step * torch.eye(entries, dtype=x.dtype)

    def at(shift: Tensor) -> Tensor:
        return scalar((flat + shift).view_as(x))

    with torch.no_grad():
        for i in range(entries):
            for j in range(entries):
                rise = at(unit[i] + unit[j]) - at(unit[i] - unit[j]) - at(unit[j] - unit[i]) + at(-unit[i] - unit[j])
                out[:, i, j] = rise / (4 * step * step)
    return out
