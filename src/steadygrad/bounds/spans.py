"""Sets of values: what is known about each number over a whole ball, in float64 and rounded outwards.

A sum of n products that is computed in any order is off by at most n u / (1 - n u) times the sum of their
sizes, u = 2^-53. Every operation here, and every layer, widens what it returns by several times that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FIELDS", "UNIT", "Span", "dot", "product", "total", "widen"]

UNIT = 2.0**-53
FIELDS = ("center", "low", "high", "rest")


@dataclass(frozen=True)
class Span:
    """Numbers (N, *) over a set of inputs, with what they are at its center.

    Attributes:
        center: the values at the center.
        low, high: every value lies between them, for every input.
        rest: bound on | value - center - first-order change |, for every input.
    """

    center: Tensor
    low: Tensor
    high: Tensor
    rest: Tensor

    @property
    def radius(self) -> Tensor:
        """The largest distance from the center."""
        return torch.maximum(self.high - self.center, self.center - self.low).clamp_min(0) * (1 + 4 * UNIT)

    @property
    def size(self) -> Tensor:
        """The largest absolute value."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def map(self, function: Callable[[Tensor], Tensor]) -> Span:
        """The same function of all four: reshaping, selecting."""
        return Span(*(function(getattr(self, f)) for f in FIELDS))


def widen(span: Span, units: float) -> Span:
    """Outwards by so many units in the last place."""
    by = units * UNIT * span.size + 1e-300
    rest = span.rest * (1 + units * UNIT) + units * UNIT * span.center.abs()
    return Span(span.center, span.low - by, span.high + by, rest)


def total(spans: Sequence[Span], weights: Sequence[float] | None = None) -> Span:
    """The sum of spans of one shape, with weights that are not negative."""
    weights = weights if weights is not None else [1.0] * len(spans)
    parts = [[w * getattr(s, f) for s, w in zip(spans, weights)] for f in FIELDS]
    size = torch.stack([w * s.size for s, w in zip(spans, weights)]).sum(0) * (4 * len(spans) * UNIT)
    center, low, high, rest = (torch.stack(p).sum(0) for p in parts)
    return Span(center, low - size, high + size, rest * (1 + 4 * len(spans) * UNIT) + size)


def product(a: Span, b: Span) -> Span:
    """Entrywise product of spans of one shape."""
    corners = torch.stack([a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high])
    rest = a.center.abs() * b.rest + b.center.abs() * a.rest + a.radius * b.radius
    return widen(Span(a.center * b.center, corners.amin(0), corners.amax(0), rest), 8)


def dot(rows: Tensor, values: Tensor) -> Tensor:
    """Linear functions (R, N, *) of values (N, *): (R, N)."""
    return (rows * values).flatten(2).sum(2)
