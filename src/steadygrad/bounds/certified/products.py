"""Products of two values, and what is made of them: values divided by their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from steadygrad.bounds.certified.intervals import UNIT, Interval, dot, product
from steadygrad.bounds.certified.layers import UNDERFLOW, Box, Layer
from steadygrad.threat import per_sample


@dataclass(frozen=True)
class Product(Layer):
    """The entrywise product of two values of one shape."""

    nonlinear: ClassVar[bool] = True

    def plain(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * inputs[1]

    def box(self, *inputs: Box) -> Box:
        (a, b), (c, d) = inputs
        corners = torch.stack([a * c, a * d, b * c, b * d])
        return corners.amin(0), corners.amax(0)

    def forward(self, *inputs: Interval) -> Interval:
        return product(*inputs)

    def backward(self, slope: Interval, *inputs: Interval) -> tuple[Interval, ...]:
        return product(slope, inputs[1]), product(slope, inputs[0])

    def above(self, rows: Tensor, *inputs: Interval) -> tuple[tuple[Tensor, ...], Tensor]:
        # (a - low a)(high b - b) >= 0, and so on at each corner: two planes above and two below (McCormick).
        a, b = inputs
        planes = [
            [(b.high, a.low), (b.low, a.high)],  # above: slope of a, slope of b; the constant is minus their product
            [(b.low, a.low), (b.high, a.high)],
        ]
        middles = [(i.low + i.high) / 2 for i in inputs]
        chosen = []
        for pair, lowest in zip(planes, (True, False)):
            heights = [p * middles[0] + q * middles[1] - p * q for p, q in pair]
            first = heights[0] <= heights[1] if lowest else heights[0] >= heights[1]
            chosen.append([torch.where(first, one, two) for one, two in zip(*pair)])
        (up_a, up_b), (down_a, down_b) = chosen
        up, down = rows.clamp_min(0), rows.clamp_max(0)
        constant = -dot(up, up_a * up_b) - dot(down, down_a * down_b)
        slack = 16 * (a.center[0].numel() + 8) * UNIT * dot(rows.abs(), 3 * a.size * b.size)
        return (up * up_a + down * down_a, up * up_b + down * down_b), constant + slack

    def rounded(self, unit: float, errors: Sequence[Tensor], *inputs: Interval) -> Tensor:
        sizes = [i.size + e for i, e in zip(inputs, errors)]
        return sizes[0] * errors[1] + sizes[1] * errors[0] + 2 * unit * sizes[0] * sizes[1] + UNDERFLOW

    def moved(self, moves: Sequence[Tensor], *inputs: Interval) -> tuple[Tensor, Tensor]:
        a, b = inputs
        entries = b.size * per_sample(moves[0], a.center) + a.size * per_sample(moves[1], b.center)
        most = [i.size.flatten(1).amax(1) for i in inputs]
        return most[1] * moves[0] + most[0] * moves[1], entries
