"""Max pooling on spans: which entry of a window is the largest may depend on the input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad.bounds.layers import Layer
from steadygrad.bounds.spans import UNIT, Span

__all__ = ["MaxPool"]


@dataclass(frozen=True)
class MaxPool(Layer):
    """Two-dimensional max pooling."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil: bool

    def plain(self, *inputs: Tensor) -> Tensor:
        return F.max_pool2d(inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil)

    def _windows(self, like: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Which entries (k, L) of a flat map each window holds, its size where it holds none; the output's shape."""
        height, width = like.shape[2:]
        shape = self.plain(like[:1, :1]).shape[2:]
        places = torch.arange(1, height * width + 1, dtype=torch.float64, device=like.device).view(1, 1, height, width)
        reach = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(shape, self.stride, self.dilation, self.kernel)]
        (up, left), (down, right) = (
            self.padding,
            (max(0, r - p - n) for r, p, n in zip(reach, self.padding, like.shape[2:])),
        )
        padded = F.pad(places, (left, right, up, down))[:, :, : reach[0], : reach[1]]
        windows = F.unfold(padded, self.kernel, self.dilation, 0, self.stride)[0].long() - 1  # (k, L)
        return torch.where(windows < 0, height * width, windows), tuple(shape)

    @staticmethod
    def _take(values: Tensor, windows: Tensor, empty: float) -> Tensor:
        """(N, C, k, L)"""
        return F.pad(values.flatten(2), (0, 1), value=empty)[:, :, windows]

    def _choice(self, x: Span) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[int, ...]]:
        """Windows, winners at the center and candidates (N, C, k, L), sure windows (N, C, 1, L), the shape."""
        windows, shape = self._windows(x.center)
        low, high = (self._take(v, windows, -torch.inf) for v in (x.low, x.high))
        center = self._take(x.center, windows, -torch.inf)
        winner = torch.zeros_like(center).scatter_(2, center.argmax(2, keepdim=True), 1.0)
        candidate = high >= low.amax(2, keepdim=True)
        return windows, winner, candidate, candidate.sum(2, keepdim=True) == 1, shape

    def forward(self, *inputs: Span) -> Span:
        (x,) = inputs
        windows, winner, candidate, sure, shape = self._choice(x)
        low, high = (self._take(v, windows, -torch.inf) for v in (x.low, x.high))
        own = (self._take(x.rest, windows, 0.0) * winner).sum(2, keepdim=True)
        floor = torch.where(winner > 0, low, torch.inf).amin(2, keepdim=True)
        other = torch.where((winner == 0) & candidate, high, -torch.inf).amax(2, keepdim=True)
        switch = torch.where(sure, 0.0, (other - floor).clamp_min(0))
        values = self.plain(x.center), low.amax(2, keepdim=True), high.amax(2, keepdim=True), own + switch
        return Span(*(v.reshape(*x.center.shape[:2], *shape) for v in values))

    def backward(self, slope: Span, *inputs: Span) -> tuple[Span, ...]:
        (x,) = inputs
        windows, winner, candidate, sure, _ = self._choice(x)
        y = slope.map(lambda v: v.flatten(2)[:, :, None])  # (N, C, 1, L)
        low = torch.where(sure, y.low, y.low.clamp_max(0)) * candidate
        high = torch.where(sure, y.high, y.high.clamp_min(0)) * candidate
        # Where the winner may change, all of the slope may go elsewhere.
        rest = torch.where(sure, y.rest, y.center.abs() + y.radius + y.rest) * candidate
        slack = 8 * len(windows) * UNIT
        size = self._sum(y.size * candidate, windows, x.center) * slack
        sums = [self._sum(v, windows, x.center) for v in (y.center * winner, low, high, rest)]
        return (Span(sums[0], sums[1] - size, sums[2] + size, sums[3] * (1 + slack) + size),)

    @staticmethod
    def _sum(values: Tensor, windows: Tensor, like: Tensor) -> Tensor:
        """Per entry of the map, the sum over the windows (N, C, k, L) that hold it."""
        flat = values.new_zeros(*values.shape[:2], like.shape[2] * like.shape[3] + 1)
        flat.index_add_(2, windows.flatten(), values.flatten(2))
        return flat[:, :, :-1].view(*values.shape[:2], *like.shape[2:])

    def above(self, rows: Tensor, *inputs: Span) -> tuple[tuple[Tensor, ...], Tensor]:
        (x,) = inputs
        windows, _, _, sure, _ = self._choice(x)
        low, high = (self._take(v, windows, -torch.inf) for v in (x.low, x.high))
        # From below any one entry, best the one with the largest lower end; from above a constant, unless it is sure.
        safest = torch.zeros_like(low).scatter_(2, low.argmax(2, keepdim=True), 1.0)
        up, down = (v.flatten(3)[:, :, :, None] for v in (rows.clamp_min(0), rows.clamp_max(0)))  # (R, N, C, 1, L)
        spread = (up * sure + down) * safest
        flat = spread.flatten(0, 1)
        new = self._sum(flat, windows, x.center).view(*rows.shape[:2], *x.center.shape[1:])
        most = high.amax(2, keepdim=True)
        constant = (up * torch.where(sure, 0.0, most)).flatten(2).sum(2)
        size = torch.maximum(torch.where(torch.isfinite(low), low, 0.0).abs().amax(2, keepdim=True), most.abs())
        slack = 16 * (len(windows) + most[0].numel() + 8) * UNIT
        return (new,), constant + slack * ((up - down) * size).flatten(2).sum(2)
