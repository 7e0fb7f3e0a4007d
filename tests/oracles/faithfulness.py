"""Faithfulness of maps by loops over samples, steps and pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Model = Callable[[Tensor], Tensor]


def values_of(maps: Tensor) -> list[list[float]]:
    """One number per pixel: the sum of absolute values over channels, row by row."""
    channels, height, width = maps.shape[1:]
    return [
        [sum(abs(float(one[c, i, j])) for c in range(channels)) for i in range(height) for j in range(width)]
        for one in maps
    ]


def signed_of(maps: Tensor) -> list[list[float]]:
    """One number per pixel: the sum over channels, row by row."""
    channels, height, width = maps.shape[1:]
    return [
        [sum(float(one[c, i, j]) for c in range(channels)) for i in range(height) for j in range(width)] for one in maps
    ]


def replaced(
    model: Model,
    x: Tensor,
    other: Tensor,
    maps: Tensor,
    target: Tensor,
    steps: int,
    *,
    least: bool = False,
    signed: bool = False,
) -> tuple[list[list[float]], list[float]]:
    """Probabilities while the pixels of x become those of other, largest value first; and the areas under them.

    With `least` the smallest value is first.
    """
    width = x.shape[3]
    curves, areas = [], []
    for n, values in enumerate(signed_of(maps) if signed else values_of(maps)):
        order = sorted(range(len(values)), key=lambda i: (values[i] if least else -values[i], i))
        curve, shares = [], []
        for step in range(steps + 1):
            count = round(len(values) * step / steps)
            point = x[n].clone()
            for place in order[:count]:
                point[:, place // width, place % width] = other[n, :, place // width, place % width]
            logits = model(point[None])[0].detach().tolist()
            curve.append(math.exp(logits[int(target[n])]) / sum(math.exp(v) for v in logits))
            shares.append(count / len(values))
        curves.append(curve)
        areas.append(sum((shares[i + 1] - shares[i]) * (curve[i] + curve[i + 1]) / 2 for i in range(steps)))
    return curves, areas


def gini(values: list[float]) -> float:
    """Mean absolute difference of all pairs over twice the mean."""
    total = sum(abs(a - b) for a in values for b in values)
    return total / (2 * len(values) * sum(values)) if sum(values) else 0.0


def energy(maps: Tensor, region: Tensor) -> list[float]:
    """Share of the squares at the pixels of the region."""
    shares = []
    for one, inside in zip(maps, region):
        squares = [[sum(float(v) ** 2 for v in one[:, i, j]), bool(inside[i, j])] for i, j in torch.ones_like(
            inside
        ).nonzero().tolist()]  # fmt: skip
        whole = sum(s for s, _ in squares)
        shares.append(sum(s for s, within in squares if within) / whole if whole else 0.0)
    return shares
