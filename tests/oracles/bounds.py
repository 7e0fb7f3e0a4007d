"""Deviations of attributions by brute force: explicit Jacobians, every corner, hidden units one by one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor


def jacobian(maps: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-4) -> Tensor:
    """(N, D, D) of maps (N, *) by central differences, column by column."""
    flat = x.flatten(1)
    columns = []
    for j in range(flat.shape[1]):
        shift = torch.zeros_like(flat)
        shift[:, j] = step
        ahead, behind = (maps((flat + sign * shift).view_as(x)).flatten(1) for sign in (1, -1))
        columns.append((ahead - behind) / (2 * step))
    return torch.stack(columns, 2)


def corners(low: Tensor, high: Tensor) -> Tensor:
    """All 2^D corners of one box (D,)."""
    return torch.stack(
        [torch.where(torch.tensor(c), high, low) for c in itertools.product((True, False), repeat=len(low))]
    )


def longest(factor: Tensor) -> float:
    """max over signs s of |F s| for one F (r, n)."""
    n = factor.shape[1]
    return max(
        float((factor @ torch.tensor(s, dtype=factor.dtype)).norm()) for s in itertools.product((1.0, -1.0), repeat=n)
    )


def one_hidden_layer(
    inner: Tensor, bias: Tensor, outer: Tensor, slope: Callable[[Tensor], Tensor], x: Tensor, eps: float, norm: str
) -> tuple[Tensor, Tensor]:
    """Ends (D,), (D,) of sum_k v_k W_ki slope(z_k), each hidden unit on its own, for a slope that rises.

    inner W (K, D), bias (K,), outer v (K,), one input x (D,).
    """
    low, high = torch.zeros_like(x), torch.zeros_like(x)
    for k in range(len(inner)):
        middle = float(inner[k] @ x + bias[k])
        reach = eps * float(inner[k].abs().sum() if norm == "linf" else inner[k].norm())
        ends = [slope(torch.tensor(middle + sign * reach, dtype=x.dtype)) for sign in (-1, 1)]
        for i in range(len(x)):
            products = [float(outer[k] * inner[k, i] * e) for e in ends]
            low[i] += min(products)
            high[i] += max(products)
    return low, high
