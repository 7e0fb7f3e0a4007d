"""Layers that apply a scalar function to every entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from steadygrad.bounds.certified.intervals import UNIT, Interval, dot, product
from steadygrad.bounds.certified.layers import Box, Layer
from steadygrad.bounds.certified.shapes import Piece, Shape
from steadygrad.threat import per_sample

_STEPS = (
    20  # toward the point where a piece has the slope of a line: any point gives a bound, a close one a sharp bound
)


class Lines(NamedTuple):
    """Slopes of a line above and of one below a function on intervals (N, *)."""

    up: Tensor
    down: Tensor


@dataclass(frozen=True)
class Curve(Layer):
    """A scalar function of every entry."""

    shape: Shape
    nonlinear: ClassVar[bool] = True

    def plain(self, *inputs: Tensor) -> Tensor:
        return self.shape.plain(inputs[0])

    def forward(self, *inputs: Interval) -> Interval:
        (x,) = inputs
        shape = self.shape
        center, slope = shape.plain(x.center), shape.slope(x.center)
        low, high = self.box((x.low, x.high))
        least, most = extremes(shape.values, slope, x.low, x.high)
        at_center = center - slope * x.center
        slack = (64 if shape.curved else 8) * UNIT * (x.size + shape.unit)
        remainder = torch.maximum(most - at_center, at_center - least) + slack
        if not shape.kinks:  # Taylor rounds less on narrow intervals
            bend = 0.5 * steepest(shape.slopes, x.low, x.high) * x.radius.square()
            remainder = torch.minimum(remainder, bend * (1 + 64 * UNIT) + 1e-15 * x.radius.square())
        off = self._snap(x, 0) + slack
        return Interval(center, low - off, high + off, slope.abs() * x.rest + remainder.clamp_min(0) + off).widened(8)

    def box(self, *inputs: Box) -> Box:
        ((low, high),) = inputs
        if self.shape.rises:
            return self.shape.plain(low), self.shape.plain(high)
        return extremes(self.shape.values, 0.0, low, high)

    def slopes(self, x: Interval) -> Interval:
        """Its derivative over the set."""
        shape = self.shape
        center, second = shape.slope(x.center), shape.second(x.center)
        low, high = slope_range(shape.values, x.low, x.high)
        least, most = extremes(shape.slopes, second, x.low, x.high)
        at_center = center - second * x.center
        remainder = torch.maximum(most - at_center, at_center - least).clamp_min(0)
        if not shape.curved:
            return Interval(center, low, high, remainder)
        remainder = remainder + 64 * UNIT * (1 + second.abs() * (x.radius + x.size))
        off = self._snap(x, 1) + 8 * UNIT
        return Interval(center, low - off, high + off, second.abs() * x.rest + remainder + off).widened(32)

    def backward(self, slope: Interval, *inputs: Interval) -> tuple[Interval, ...]:
        return (product(slope, self.slopes(inputs[0])),)

    def _snap(self, x: Interval, order: int) -> Tensor | float:
        off = self.shape.snap
        return torch.where(x.high > off[2], off[order], 0.0).to(x.high) if off[order] else 0.0

    def chord(self, x: Interval) -> Tensor:
        """The slope between the ends of each interval; that of the tangent where they are too near."""
        width = x.high - x.low
        rise = self.shape.plain(x.high) - self.shape.plain(x.low)
        return torch.where(width > 1e-9, rise / width.clamp_min(1e-9), self.shape.slope((x.low + x.high) / 2))

    def lines(self, x: Interval) -> Lines:
        """Slopes of the lines above and below that are nearest in the middle, of the chord's and the tangent's."""
        middle = (x.low + x.high) / 2
        chord, tangent = self.chord(x), self.shape.slope(middle)
        ends = [extremes(self.shape.values, slope, x.low, x.high) for slope in (chord, tangent)]
        lower, upper = ([chord * middle + ends[0][i], tangent * middle + ends[1][i]] for i in (0, 1))
        return Lines(
            torch.where(upper[0] <= upper[1], chord, tangent), torch.where(lower[0] > lower[1], chord, tangent)
        )

    def width(self, x: Interval, lines: Lines) -> Tensor:
        """How far the lines above and below are apart in the middle of the intervals."""
        top = extremes(self.shape.values, lines.up, x.low, x.high)[1]
        bottom = extremes(self.shape.values, lines.down, x.low, x.high)[0]
        return ((lines.up - lines.down) * (x.low + x.high) / 2 + top - bottom).clamp_min(0)

    def above(self, rows: Tensor, *inputs: Interval, lines: Lines | None = None) -> tuple[tuple[Tensor, ...], Tensor]:
        (x,) = inputs
        up, down = self.lines(x) if lines is None else lines
        top = extremes(self.shape.values, up, x.low, x.high)[1]
        bottom = extremes(self.shape.values, down, x.low, x.high)[0]
        snap = self._snap(x, 0)
        above, below = rows.clamp_min(0), rows.clamp_max(0)
        slack = 16 * (x.center[0].numel() + 8) * UNIT
        size = x.size * (1 + torch.maximum(up.abs(), down.abs())) + torch.maximum(top.abs(), bottom.abs())
        constant = dot(above, top + snap) + dot(below, bottom - snap)
        return (above * up + below * down,), constant + slack * dot(rows.abs(), size + self.shape.unit)

    def rounded(self, unit: float, errors: Sequence[Tensor], *inputs: Interval) -> Tensor:
        (x,) = inputs
        wide = Interval(x.center, x.low - errors[0], x.high + errors[0], x.rest)
        snap = self._snap(wide, 0)
        return self._steepest(wide) * errors[0] + 16 * unit * (x.size + errors[0] + self.shape.unit) + snap

    def moved(self, moves: Sequence[Tensor], *inputs: Interval) -> tuple[Tensor, Tensor]:
        (x,) = inputs
        slope = self._steepest(x)
        return moves[0] * slope.flatten(1).amax(1), per_sample(moves[0], x.center) * slope

    def slope_range(self, x: Interval) -> tuple[Tensor, Tensor]:
        """The least and the largest slope over the set."""
        return slope_range(self.shape.values, x.low, x.high)

    def _steepest(self, x: Interval) -> Tensor:
        """At least its largest absolute slope over the set."""
        return steepest(self.shape.values, x.low, x.high) * (1 + 2.0**-40) + 2.0**-40


def extremes(pieces: tuple[Piece, ...], slope: Tensor | float, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """At most the least and at least the largest value of f(x) - slope x for x in [low, high]."""
    least, most = torch.full_like(low, torch.inf), torch.full_like(low, -torch.inf)
    for piece in pieces:
        there = (low <= piece.high) & (high >= piece.low)
        start, end = (v.clamp(piece.low, piece.high) for v in (low, high))
        ends = [piece.value(v) - slope * v for v in (start, end)]
        small, large = torch.minimum(*ends), torch.maximum(*ends)
        if piece.bend:
            with torch.no_grad():
                near = _where(piece, slope, start, end)
            value, tilt = piece.value(near) - slope * near, piece.slope(near) - slope
            tangent = [value + tilt * (v - near) for v in (start, end)]
            if piece.bend > 0:
                small = torch.minimum(*tangent)
            else:
                large = torch.maximum(*tangent)
        least = torch.where(there, torch.minimum(least, small), least)
        most = torch.where(there, torch.maximum(most, large), most)
    return least, most


def _where(piece: Piece, slope: Tensor | float, low: Tensor, high: Tensor) -> Tensor:
    """A point (N, *) in [low, high] where a piece has about this slope: by halving and false position in turns."""
    at_low, at_high = piece.slope(low) - slope, piece.slope(high) - slope
    # Where the slope is not reached, the end that comes nearest.
    inside = at_low * at_high < 0
    best = torch.where(at_low.abs() < at_high.abs(), low, high)
    for step in range(_STEPS):
        gap = torch.where(inside, at_high - at_low, 1.0)
        crossing = (low * at_high - high * at_low) / gap if step % 2 else (low + high) / 2
        point = torch.minimum(torch.maximum(torch.where(inside, crossing, best), low), high)
        value = piece.slope(point) - slope
        upper = value * at_high > 0
        low, high = torch.where(upper, low, point), torch.where(upper, point, high)
        at_low, at_high = torch.where(upper, at_low, value), torch.where(upper, value, at_high)
        best = torch.where(inside, point, best)
        inside = inside & (value != 0)
    return best


def slope_range(pieces: tuple[Piece, ...], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest slope on [low, high]; on a piece it is at an end."""
    least, most = torch.full_like(low, torch.inf), torch.full_like(low, -torch.inf)
    for piece in pieces:
        there = (low <= piece.high) & (high >= piece.low)
        ends = [piece.slope(v.clamp(piece.low, piece.high)) for v in (low, high)]
        least = torch.where(there, torch.minimum(least, torch.minimum(*ends)), least)
        most = torch.where(there, torch.maximum(most, torch.maximum(*ends)), most)
    return least, most


def steepest(pieces: tuple[Piece, ...], low: Tensor, high: Tensor) -> Tensor:
    """The largest absolute slope on [low, high]."""
    return torch.maximum(*(v.abs() for v in slope_range(pieces, low, high)))
