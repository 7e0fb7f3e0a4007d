"""Max pooling on intervals: which entry is the largest may change within the set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad.bounds.certified.intervals import UNIT, Interval
from steadygrad.bounds.certified.layers import Box, Layer
from steadygrad.threat import per_sample


@dataclass(frozen=True)
class MaxPool(Layer):
    """Two-dimensional max pooling."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil: bool
    nonlinear: ClassVar[bool] = True

    def plain(self, *inputs: Tensor) -> Tensor:
        return F.max_pool2d(inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil)

    def _windows(self, like: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Which entries (k, L) of a flat map each window holds, its size where it holds none; the output's shape."""
        height, width = like.shape[2:]
        shape = self.plain(like[:1, :1]).shape[2:]
        places = torch.arange(1, height * width + 1, dtype=torch.float64, device=like.device).view(1, 1, height, width)
        reach = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(shape, self.stride, self.dilation, self.kernel)]
        up, left = self.padding
        down, right = (max(0, r - p - n) for r, p, n in zip(reach, self.padding, like.shape[2:]))
        padded = F.pad(places, (left, right, up, down))[:, :, : reach[0], : reach[1]]
        windows = F.unfold(padded, self.kernel, self.dilation, 0, self.stride)[0].long() - 1  # (k, L)
        return torch.where(windows < 0, height * width, windows), tuple(shape)

    def _choice(self, x: Interval) -> _Choice:
        windows, shape = self._windows(x.center)
        center, low, high = (_take(v, windows) for v in (x.center, x.low, x.high))
        winner = torch.zeros_like(center).scatter_(2, center.argmax(2, keepdim=True), 1.0)
        candidate = high >= low.amax(2, keepdim=True)
        return _Choice(windows, shape, low, high, winner, candidate, candidate.sum(2, keepdim=True) == 1)

    def forward(self, *inputs: Interval) -> Interval:
        (x,) = inputs
        windows, shape, low, high, winner, candidate, sure = self._choice(x)
        own = (_take(x.rest, windows, 0.0) * winner).sum(2, keepdim=True)
        floor = torch.where(winner > 0, low, torch.inf).amin(2, keepdim=True)
        other = torch.where((winner == 0) & candidate, high, -torch.inf).amax(2, keepdim=True)
        switch = torch.where(sure, 0.0, (other - floor).clamp_min(0))
        values = self.plain(x.center), low.amax(2, keepdim=True), high.amax(2, keepdim=True), own + switch
        return Interval(*(v.reshape(*x.center.shape[:2], *shape) for v in values))

    def box(self, *inputs: Box) -> Box:
        low, high = (self.plain(end) for end in inputs[0])
        return low, high

    def backward(self, slope: Interval, *inputs: Interval) -> tuple[Interval, ...]:
        (x,) = inputs
        windows, _, _, _, winner, candidate, sure = self._choice(x)
        y = slope.map(lambda v: v.flatten(2)[:, :, None])  # (N, C, 1, L)
        low = torch.where(sure, y.low, y.low.clamp_max(0)) * candidate
        high = torch.where(sure, y.high, y.high.clamp_min(0)) * candidate
        # Where the winner may change, all of the slope may go elsewhere.
        rest = torch.where(sure, y.rest, y.center.abs() + y.radius + y.rest) * candidate
        slack = 8 * len(windows) * UNIT
        size = _sum(y.size * candidate, windows, x.center) * slack
        sums = [_sum(v, windows, x.center) for v in (y.center * winner, low, high, rest)]
        return (Interval(sums[0], sums[1] - size, sums[2] + size, sums[3] * (1 + slack) + size),)

    def above(self, rows: Tensor, *inputs: Interval) -> tuple[tuple[Tensor, ...], Tensor]:
        (x,) = inputs
        windows, _, low, high, _, _, _ = self._choice(x)
        # From below any one entry, best the one with the largest lower end.
        safest = torch.zeros_like(low).scatter_(2, low.argmax(2, keepdim=True), 1.0)
        # From above max(x_i, second), of the entry that reaches highest and where the others end: below its chord.
        first = torch.zeros_like(high).scatter_(2, high.argmax(2, keepdim=True), 1.0)
        most, least = high.amax(2, keepdim=True), (low.clamp_min(-1e300) * first).sum(2, keepdim=True)
        second = torch.where(first > 0, -torch.inf, high).amax(2, keepdim=True).clamp_min(-1e300)
        slope = torch.where(second <= least, 1.0, (most - second) / (most - least).clamp_min(1e-9))
        top = torch.maximum(torch.maximum(second, least) - slope * least, most - slope * most)  # convex: at an end
        up, down = (v.flatten(3)[:, :, :, None] for v in (rows.clamp_min(0), rows.clamp_max(0)))  # (R, N, C, 1, L)
        spread = (up * slope * first + down * safest).flatten(0, 1)
        new = _sum(spread, windows, x.center).view(*rows.shape[:2], *x.center.shape[1:])
        constant = (up * top).flatten(2).sum(2)
        size = torch.where(torch.isfinite(low), torch.maximum(low.abs(), high.abs()), 0.0).amax(2, keepdim=True)
        slack = 16 * (len(windows) + most[0].numel() + 8) * UNIT
        return (new,), constant + slack * ((up - down) * 2 * size).flatten(2).sum(2)

    def rounded(self, unit: float, errors: Sequence[Tensor], *inputs: Interval) -> Tensor:
        return self.plain(errors[0])

    def moved(self, moves: Sequence[Tensor], *inputs: Interval) -> tuple[Tensor, Tensor]:
        (x,) = inputs
        like = self.plain(x.center[:1])
        # An entry may be in several windows, at every place of a dilated one.
        shared = math.prod(k if d > 1 else -(-k // s) for k, s, d in zip(self.kernel, self.stride, self.dilation))
        move = moves[0] * shared**0.5
        return move, per_sample(moves[0], like).expand(len(move), *like.shape[1:])


class _Choice(NamedTuple):
    """What each window of a max pooling chooses from: k entries in each of L windows, -inf where one is missing."""

    windows: Tensor  # (k, L): places in the flat map
    shape: tuple[int, ...]  # of the output
    low: Tensor  # (N, C, k, L)
    high: Tensor
    winner: Tensor  # 1 for the largest at the center
    candidate: Tensor  # may be the largest
    sure: Tensor  # (N, C, 1, L): only one candidate


def _take(values: Tensor, windows: Tensor, empty: float = -torch.inf) -> Tensor:
    """The values (N, C, k, L) in each window."""
    return F.pad(values.flatten(2), (0, 1), value=empty)[:, :, windows]


def _sum(values: Tensor, windows: Tensor, like: Tensor) -> Tensor:
    """Per entry of the map, the sum over the windows (N, C, k, L) that hold it."""
    flat = values.new_zeros(*values.shape[:2], like.shape[2] * like.shape[3] + 1)
    flat.index_add_(2, windows.flatten(), values.flatten(2))
    return flat[:, :, :-1].view(*values.shape[:2], *like.shape[2:])
