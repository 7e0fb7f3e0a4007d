"""Lines around curves that are improved for the function that is bounded, by steps of Adam on their slopes.

Any slope gives a bound, so that the best one of all steps counts.

Source: Xu et al. 2021, arXiv:2011.13824.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steadygrad.bounds.certified.ball import Ball
from steadygrad.bounds.certified.crown import largest
from steadygrad.bounds.certified.curves import Curve, Lines
from steadygrad.bounds.certified.intervals import Interval
from steadygrad.bounds.certified.network import Network

_RATE = 0.15  # of the steps, in shares of what a slope can be


class BetterLines:
    """Slopes of the lines around all curves, for each sample its own."""

    def __init__(self, network: Network, ball: Ball, intervals: list[Interval], lines: dict[int, Lines]) -> None:
        self.network, self.ball, self.intervals = network, ball, intervals
        self.leaves = {place: Lines(*(v.clone() for v in pair)) for place, pair in lines.items()}
        self.spans = {}
        for place in lines:
            layer, inputs = network.steps[place - 1]
            assert isinstance(layer, Curve)
            low, high = layer.slope_range(intervals[inputs[0]])
            chord = layer.chord(intervals[inputs[0]])
            # A chord is the best on both sides of it: there is no slope to follow.
            self.spans[place] = [(low, high, (high - low) * (line != chord)) for line in lines[place]]
        self.moments = [[torch.zeros_like(v) for v in self._flat()] for _ in range(2)]
        self.taken = 0

    def _flat(self) -> list[Tensor]:
        return [v for pair in self.leaves.values() for v in pair]

    def improved(self, rows: Tensor) -> Tensor:
        """At least the largest values (N,) of functions (1, N, K), by the slopes so far, which then take a step."""
        self.taken += 1
        with torch.enable_grad():
            leaves = {p: Lines(*(v.detach().requires_grad_() for v in pair)) for p, pair in self.leaves.items()}
            flat = [v for pair in leaves.values() for v in pair]
            value = largest(self.network, self.ball, self.intervals, len(self.network.steps), rows, leaves)[0]
            if not flat or not value.requires_grad:
                return value.detach()
            grads = torch.autograd.grad(value.sum(), flat, allow_unused=True)
        first, second = self.moments
        new = []
        for i, (leaf, grad) in enumerate(zip(flat, grads)):
            grad = torch.zeros_like(leaf) if grad is None else torch.nan_to_num(grad)
            first[i] = 0.9 * first[i] + 0.1 * grad
            second[i] = 0.99 * second[i] + 0.01 * grad.square()
            way = first[i] / (1 - 0.9**self.taken) / ((second[i] / (1 - 0.99**self.taken)).sqrt() + 1e-12)
            low, high, span = self.spans[list(leaves)[i // 2]][i % 2]
            moved = leaf.detach() - _RATE * 0.97**self.taken * span * way
            new.append(torch.minimum(torch.maximum(moved, low), high))
        self.leaves = {p: Lines(*new[2 * i : 2 * i + 2]) for i, p in enumerate(leaves)}
        return value.detach()
