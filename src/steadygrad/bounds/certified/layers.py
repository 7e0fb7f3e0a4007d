"""Layers on intervals, forwards and backwards, and linear functions that bound them."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad.bounds.certified.intervals import TINY, UNIT, Interval, dot, product, total

# softplus is linear where beta x > 20 in PyTorch: its value and its slope are off by less than this there.
_SNAP = 2.1e-9
# 1 - s loses its digits where s is near 1.
_FLAT = 1e-15


Map = Callable[[Tensor], Tensor]


class Layer(abc.ABC):
    """A layer with one or two inputs."""

    @abc.abstractmethod
    def plain(self, *inputs: Tensor) -> Tensor:
        """What the layer computes."""

    @abc.abstractmethod
    def forward(self, *inputs: Interval) -> Interval:
        """Its output over the set."""

    @abc.abstractmethod
    def backward(self, slope: Interval, *inputs: Interval) -> tuple[Interval, ...]:
        """The slopes with respect to its inputs over the set, from that with respect to its output."""

    @abc.abstractmethod
    def above(self, rows: Tensor, *inputs: Interval) -> tuple[tuple[Tensor, ...], Tensor]:
        """Linear functions of the inputs above linear functions `rows` (R, N, *) of the output.

        Returns one tensor (R, N, *) per input and constants (R, N): rows . output <= sum_i new_i . input_i + constant.
        """


@dataclass(frozen=True)
class Affine(Layer):
    """function(x, weight) + bias, linear in x and in the weight; without a weight, none may be negative (a mean)."""

    function: Callable[[Tensor, Any], Tensor]
    weight: Tensor | None = None
    bias: Tensor | None = None

    def plain(self, *inputs: Tensor) -> Tensor:
        out = self.function(inputs[0], self.weight)
        return out if self.bias is None else out + self.bias

    def _absolute(self, x: Tensor) -> Tensor:
        return self.function(x, None if self.weight is None else self.weight.abs())

    def _back(self, slope: Tensor, like: Tensor, *, absolute: bool = False) -> Tensor:
        """Slopes with respect to inputs of the shape of `like`, from those with respect to the output."""
        with torch.enable_grad():
            x = torch.zeros(len(slope), *like.shape[1:], dtype=slope.dtype, device=slope.device).requires_grad_()
            out = self._absolute(x) if absolute else self.function(x, self.weight)
            (back,) = torch.autograd.grad(out, x, slope)
        return back

    @staticmethod
    def _unit(*values: Tensor) -> float:
        # No sum in the layer, or in its transpose, has more terms than the input or the output has entries.
        return 4 * (max(v[0].numel() for v in values) + 8) * UNIT

    def _through(self, x: Interval, function: Map, absolute: Map, bias: Tensor | None = None) -> Interval:
        """An interval through a linear function with its absolute weights, beside which a bias is rounded."""
        middle, half = (x.low + x.high) / 2, (x.high - x.low) / 2
        center, shifted = function(torch.cat([x.center, middle])).chunk(2)
        unit = self._unit(x.center, center)
        grown = torch.cat([half + unit * (middle.abs() + half), x.rest + unit * x.center.abs()])
        slack = 0.0 if bias is None else unit * bias.abs()
        radius, rest = (t * (1 + unit) + slack + TINY for t in absolute(grown).chunk(2))
        return Interval(center, shifted - radius, shifted + radius, rest)

    def forward(self, *inputs: Interval) -> Interval:
        return self._through(inputs[0], self.plain, self._absolute, self.bias)

    def backward(self, slope: Interval, *inputs: Interval) -> tuple[Interval, ...]:
        back = functools.partial(self._back, like=inputs[0].center)
        return (self._through(slope, back, functools.partial(back, absolute=True)),)

    def above(self, rows: Tensor, *inputs: Interval) -> tuple[tuple[Tensor, ...], Tensor]:
        (x,) = inputs
        size = self._absolute(x.size)
        new = self._back(rows.flatten(0, 1), x.center).view(*rows.shape[:2], *x.center.shape[1:])
        constant = torch.zeros(rows.shape[:2], dtype=rows.dtype, device=rows.device)
        if self.bias is not None:
            size = size + self.bias.abs()
            constant = dot(rows, self.bias.expand_as(rows[0]))
        # Rounding changes the new rows, and so the function, by no more than this anywhere on the set.
        return (new,), constant + 2 * self._unit(x.center, size) * dot(rows.abs(), size)


@dataclass(frozen=True)
class Rectifier(Layer):
    """ReLU, or softplus with a beta."""

    beta: float | None = None

    def plain(self, *inputs: Tensor) -> Tensor:
        # Smooth as far as float64 reaches; PyTorch's own cut at 20 is within the intervals.
        return F.relu(inputs[0]) if self.beta is None else F.softplus(inputs[0], self.beta, threshold=500.0)

    def forward(self, *inputs: Interval) -> Interval:
        (x,) = inputs
        center, low, high = (self.plain(v) for v in (x.center, x.low, x.high))
        if self.beta is None:
            kink = torch.where(x.center > 0, (-x.low).clamp_min(0), x.high.clamp_min(0))
            return Interval(center, low, high, torch.where(x.center > 0, x.rest, 0.0) + kink)
        slope = torch.sigmoid(self.beta * x.center)
        # Above its tangent by what it is at the farther end, or by Taylor, which rounds less on narrow intervals.
        ends = [(v, v - x.center) for v in (x.low, x.high)]
        above = torch.stack([self.plain(v) - center - slope * by for v, by in ends]).amax(0).clamp_min(0)
        above = above + 64 * UNIT * (x.size + 1 / self.beta)
        remainder = torch.minimum(0.5 * self._second(x) * x.radius.square(), above) + self._snap(x) / self.beta
        return Interval(center, low, high + self._snap(x) / self.beta, slope * x.rest + remainder).widened(32)

    def slopes(self, x: Interval) -> Interval:
        """Its derivative over the set."""
        if self.beta is None:
            center, low, high = ((v > 0).to(v.dtype) for v in (x.center, x.low, x.high))
            return Interval(center, low, high, high - low)
        center, low, high = (torch.sigmoid(self.beta * v) for v in (x.center, x.low, x.high))
        second = self.beta * center * (1 - center)
        # It is farthest from its tangent at an end, or where its own slope is the same again: at minus the center.
        mirror = torch.where((x.low <= -x.center) & (-x.center <= x.high), -x.center, x.center)
        off = torch.stack(
            [torch.sigmoid(self.beta * v) - center - second * (v - x.center) for v in (x.low, x.high, mirror)]
        )
        most = off.abs().amax(0) + 64 * UNIT * (1 + self.beta * x.radius)
        remainder = torch.minimum(0.5 * self._third(x) * x.radius.square(), most)
        rest = second * x.rest + remainder + self._snap(x)
        return Interval(center, low, high + self._snap(x), rest).widened(32)

    def backward(self, slope: Interval, *inputs: Interval) -> tuple[Interval, ...]:
        return (product(slope, self.slopes(inputs[0])),)

    def _snap(self, x: Interval) -> Tensor:
        assert self.beta is not None
        return torch.where(self.beta * x.high > 19.9, _SNAP, 0.0).to(x.high)

    def _second(self, x: Interval) -> Tensor:
        """The largest second derivative of softplus between low and high: at the point nearest to 0."""
        assert self.beta is not None
        nearest = torch.maximum(x.low, torch.minimum(x.high, torch.zeros_like(x.low)))
        s = torch.sigmoid(self.beta * nearest)
        return self.beta * (s * (1 - s) + _FLAT)

    def _third(self, x: Interval) -> Tensor:
        """The largest absolute third derivative of softplus between low and high.

        With s = sigmoid(beta x) it is beta^2 s (1 - s) |1 - 2 s|, largest at beta x = ± log(2 + sqrt(3)).
        """
        assert self.beta is not None
        peak = 1.3169578969248166 / self.beta
        ends = (torch.sigmoid(self.beta * v) for v in (x.low, x.high))
        at_ends = torch.maximum(*(s * (1 - s) * (1 - 2 * s).abs() for s in ends))
        within = ((x.low <= peak) & (x.high >= peak)) | ((x.low <= -peak) & (x.high >= -peak))
        return self.beta**2 * (torch.where(within, 0.09622504486493764, at_ends) + _FLAT)

    def above(self, rows: Tensor, *inputs: Interval) -> tuple[tuple[Tensor, ...], Tensor]:
        (x,) = inputs
        ends = [self.plain(v) for v in (x.low, x.high)]
        width = x.high - x.low
        middle = (x.low + x.high) / 2
        if self.beta is None:
            inner = (x.high > -x.low).to(x.low)
            inner = torch.where(x.low >= 0, 1.0, torch.where(x.high <= 0, 0.0, inner))
            tangent = torch.zeros_like(inner)
        else:
            inner = torch.sigmoid(self.beta * middle)
            tangent = self.plain(middle) - inner * middle
        chord = torch.where(width > 1e-9, (ends[1] - ends[0]) / width.clamp_min(1e-9), inner)
        # A convex function minus a line is largest at an end, whatever the slope.
        top = torch.maximum(ends[0] - chord * x.low, ends[1] - chord * x.high)
        if self.beta is not None:
            top = top + self._snap(x) / self.beta
        up, down = rows.clamp_min(0), rows.clamp_max(0)
        slack = 16 * (x.center[0].numel() + 8) * UNIT
        size = x.size + torch.maximum(*(e.abs() for e in ends)) + top.abs()
        return (up * chord + down * inner,), dot(up, top) + dot(down, tangent) + slack * dot(rows.abs(), size)


@dataclass(frozen=True)
class Add(Layer):
    """The sum of two values."""

    def plain(self, *inputs: Tensor) -> Tensor:
        return inputs[0] + inputs[1]

    def forward(self, *inputs: Interval) -> Interval:
        return total(inputs)

    def backward(self, slope: Interval, *inputs: Interval) -> tuple[Interval, ...]:
        return (slope, slope)

    def above(self, rows: Tensor, *inputs: Interval) -> tuple[tuple[Tensor, ...], Tensor]:
        slack = 8 * UNIT * dot(rows.abs(), inputs[0].size + inputs[1].size)
        return (rows, rows), slack


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
        windows, _, low, high, _, _, sure = self._choice(x)
        # From below any one entry, best the one with the largest lower end; from above a constant, unless it is sure.
        safest = torch.zeros_like(low).scatter_(2, low.argmax(2, keepdim=True), 1.0)
        up, down = (v.flatten(3)[:, :, :, None] for v in (rows.clamp_min(0), rows.clamp_max(0)))  # (R, N, C, 1, L)
        spread = ((up * sure + down) * safest).flatten(0, 1)
        new = _sum(spread, windows, x.center).view(*rows.shape[:2], *x.center.shape[1:])
        most = high.amax(2, keepdim=True)
        constant = (up * torch.where(sure, 0.0, most)).flatten(2).sum(2)
        size = torch.maximum(torch.where(torch.isfinite(low), low, 0.0).abs().amax(2, keepdim=True), most.abs())
        slack = 16 * (len(windows) + most[0].numel() + 8) * UNIT
        return (new,), constant + slack * ((up - down) * size).flatten(2).sum(2)


def nonlinear(layer: Layer) -> bool:
    """Whether the layer leaves something out to first order."""
    return isinstance(layer, Rectifier | MaxPool)


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
