"""Intervals: what is known about each number over a whole ball, in float64 and rounded outwards.

A sum of n products that is computed in any order is off by at most n u / (1 - n u) times the sum of their
sizes, u = 2^-53. Every operation here, and every layer, widens what it returns by several times that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

UNIT = 2.0**-53
TINY = 1e-300


@dataclass(frozen=True)
class Interval:
    """Numbers (N, *) over a set of inputs, with what they are at its center."""

    center: Tensor  # the values at the center
    low: Tensor  # every value lies between low and high, for every input
    high: Tensor
    rest: Tensor  # bound on | value - center - first-order change |, for every input

    @property
    def radius(self) -> Tensor:
        """The largest distance from the center."""
        return torch.maximum(self.high - self.center, self.center - self.low).clamp_min(0) * (1 + 4 * UNIT)

    @property
    def size(self) -> Tensor:
        """The largest absolute value."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def map(self, function: Callable[[Tensor], Tensor]) -> Interval:
        """The same function of all four: reshaping, selecting."""
        return Interval(*map(function, (self.center, self.low, self.high, self.rest)))

    def exact(self) -> Interval:
        """The same as if its first-order change were all."""
        return replace(self, rest=torch.zeros_like(self.rest))

    def widened(self, units: float) -> Interval:
        """Outwards by so many units in the last place."""
        by = units * UNIT * self.size + TINY
        rest = self.rest * (1 + units * UNIT) + units * UNIT * self.center.abs()
        return Interval(self.center, self.low - by, self.high + by, rest)

    def cut(self, low: Tensor, high: Tensor) -> Interval:
        """Cut to what also lies between low and high; the center stays inside, whatever the rounding."""
        low = torch.maximum(self.low, torch.minimum(low, self.center))
        high = torch.minimum(self.high, torch.maximum(high, self.center))
        return replace(self, low=low, high=high)

    def __neg__(self) -> Interval:
        return Interval(-self.center, -self.high, -self.low, self.rest)


def total(intervals: Sequence[Interval], weights: Sequence[float] | None = None) -> Interval:
    """The sum of intervals of one shape, with weights that are not negative."""
    weights = weights if weights is not None else [1.0] * len(intervals)
    size = torch.stack([w * i.size for i, w in zip(intervals, weights)]).sum(0) * (4 * len(intervals) * UNIT)
    parts = [(w * i.center, w * i.low, w * i.high, w * i.rest) for i, w in zip(intervals, weights)]
    center, low, high, rest = (torch.stack(p).sum(0) for p in zip(*parts))
    return Interval(center, low - size, high + size, rest * (1 + 4 * len(intervals) * UNIT) + size)


def product(a: Interval, b: Interval) -> Interval:
    """Entrywise product of intervals of one shape."""
    corners = torch.stack([a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high])
    rest = a.center.abs() * b.rest + b.center.abs() * a.rest + a.radius * b.radius
    return Interval(a.center * b.center, corners.amin(0), corners.amax(0), rest).widened(8)


def dot(rows: Tensor, values: Tensor) -> Tensor:
    """Linear functions (R, N, *) of values (N, *): (R, N)."""
    return (rows * values).flatten(2).sum(2)
