"""Bounds of every value in a network over a ball: interval arithmetic, tightened by linear functions.

Interval arithmetic forgets that the values of a layer depend on the same input. A linear function of a
layer's values is taken back to the input instead, each rectifier replaced by lines above and below it,
and only there is its extreme taken.

Source: Zhang et al. 2018, arXiv:1811.00866 (CROWN).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steadygrad.bounds.certified.intervals import UNIT, Interval
from steadygrad.bounds.certified.layers import nonlinear
from steadygrad.bounds.certified.network import Network

_ENTRIES = 2**22  # of the linear functions that are taken back at once


@dataclass(frozen=True)
class Ball:
    """The inputs (N, *) between low and high, and within an l2 radius (N,) of the center if one is given."""

    center: Tensor
    low: Tensor
    high: Tensor
    radius: Tensor | None = None

    @property
    def interval(self) -> Interval:
        """What is known about the entries."""
        return Interval(self.center, self.low, self.high, torch.zeros_like(self.center))

    def between(self, baseline: Tensor, node: float) -> Ball:
        """A ball around the points baseline + node (x - baseline) of all its inputs x."""
        center, low, high = (baseline + node * (v - baseline) for v in (self.center, self.low, self.high))
        slack = 4 * UNIT * (center.abs() + baseline.abs())
        radius = None if self.radius is None else node * self.radius + slack.flatten(1).sum(1)
        return Ball(center, low - slack, high + slack, radius)

    def largest(self, rows: Tensor) -> Tensor:
        """At least the largest value (R, N) of linear functions (R, N, *) on the ball."""
        flat = rows.flatten(2)
        low, high, center = (v.flatten(1) for v in (self.low, self.high, self.center))
        best = (flat.clamp_min(0) * high + flat.clamp_max(0) * low).sum(2)
        size = torch.maximum(low.abs(), high.abs())
        if self.radius is not None:
            size = size + self.radius[:, None]
            best = torch.minimum(best, (flat * center).sum(2) + self.radius * torch.linalg.vector_norm(flat, dim=2))
        slack = 8 * (flat.shape[2] + 8) * UNIT
        return best + slack * (flat.abs() * size).sum(2)


def value_intervals(network: Network, ball: Ball, units: int) -> list[Interval]:
    """Intervals of the input, of every layer and of the logits.

    What a rectifier or a max pooling takes is tightened if it has at most `units` entries.
    """
    tightened = {inputs[0] for layer, inputs in network.steps if nonlinear(layer)} | {len(network.steps)}
    intervals = [ball.interval]
    for place, (layer, inputs) in enumerate(network.steps, start=1):
        intervals.append(layer.forward(*(intervals[i] for i in inputs)))
        if place in tightened and intervals[place].center[0].numel() <= units:
            intervals[place] = _tightened(network, ball, intervals, place)
    return intervals


def _tightened(network: Network, ball: Ball, intervals: list[Interval], place: int) -> Interval:
    interval, shape = intervals[place], intervals[place].center.shape
    low, high = interval.low.flatten(1).clone(), interval.high.flatten(1).clone()
    entries = low.shape[1]
    widest = max(s.center[0].numel() for s in intervals[: place + 1])
    share = max(1, _ENTRIES // (2 * len(low) * widest))
    for first in range(0, entries, share):
        which = torch.arange(first, min(first + share, entries), device=low.device)
        unit = torch.zeros(len(which), entries, dtype=low.dtype, device=low.device)
        unit[torch.arange(len(which)), which] = 1
        rows = torch.cat([unit, -unit])[:, None].expand(-1, len(low), -1).reshape(-1, *shape)
        up, down = _largest(network, ball, intervals, place, rows).chunk(2)  # (R, N)
        high[:, which] = torch.minimum(high[:, which], up.T)
        low[:, which] = torch.maximum(low[:, which], -down.T)
    return Interval(interval.center, low.view(shape), torch.maximum(high, low).view(shape), interval.rest)


def _largest(network: Network, ball: Ball, intervals: list[Interval], place: int, rows: Tensor) -> Tensor:
    """At least the largest values (R, N) of linear functions (R, N, *) of the value at a place."""
    functions = {place: rows}
    constant = torch.zeros(rows.shape[:2], dtype=rows.dtype, device=rows.device)
    for at in range(place, 0, -1):
        if at not in functions:
            continue
        layer, inputs = network.steps[at - 1]
        new, more = layer.above(functions.pop(at), *(intervals[i] for i in inputs))
        constant = constant + more * (1 + 2.0**-50)
        for i, function in zip(inputs, new):
            functions[i] = functions[i] + function if i in functions else function
    if 0 not in functions:  # the value does not depend on the input
        return constant
    best: Tensor = constant + ball.largest(functions[0])
    return best + 2.0**-48 * constant.abs()
