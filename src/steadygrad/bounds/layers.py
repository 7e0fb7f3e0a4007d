"""Layers on spans, forwards and backwards, and linear functions that bound them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad.bounds.spans import UNIT, Span, dot, product, total, widen

__all__ = ["Add", "Affine", "Layer", "Rectify"]

# softplus is linear where beta x > 20 in PyTorch: its value and its slope are off by less than this there.
_SNAP = 2.1e-9
# 1 - s loses its digits where s is near 1.
_FLAT = 1e-15


class Layer(abc.ABC):
    """A layer with one or two inputs."""

    @abc.abstractmethod
    def plain(self, *inputs: Tensor) -> Tensor:
        """What the layer computes."""

    @abc.abstractmethod
    def forward(self, *inputs: Span) -> Span:
        """Its output over the set."""

    @abc.abstractmethod
    def backward(self, slope: Span, *inputs: Span) -> tuple[Span, ...]:
        """The slopes with respect to its inputs over the set, from that with respect to its output."""

    @abc.abstractmethod
    def above(self, rows: Tensor, *inputs: Span) -> tuple[tuple[Tensor, ...], Tensor]:
        """Linear functions of the inputs above linear functions `rows` (R, N, *) of the output.

        Returns one tensor (R, N, *) per input and constants (R, N): rows . output <= sum_i new_i . input_i + constant.
        """


@dataclass(frozen=True)
class Affine(Layer):
    """function(x, weight) + bias, linear in x and in the weight; without a weight, none may be negative (a mean)."""

    function: Callable[[Tensor, Tensor | None], Tensor]
    weight: Tensor | None = None
    bias: Tensor | None = None

    def plain(self, *inputs: Tensor) -> Tensor:
        out = self.function(inputs[0], self.weight)
        return out if self.bias is None else out + self.bias

    def _absolute(self, x: Tensor) -> Tensor:
        return self.function(x, None if self.weight is None else self.weight.abs())

    def _back(self, like: Tensor, slope: Tensor, absolute: bool) -> Tensor:
        with torch.enable_grad():
            x = torch.zeros(len(slope), *like.shape[1:], dtype=slope.dtype, device=slope.device).requires_grad_()
            out = self._absolute(x) if absolute else self.function(x, self.weight)
            (back,) = torch.autograd.grad(out, x, slope)
        return back

    def _unit(self, *shapes: Tensor) -> float:
        # No sum in here, or in the transpose, has more terms than the input or the output has entries.
        return 4 * (max(s[0].numel() for s in shapes) + 8) * UNIT

    def forward(self, *inputs: Span) -> Span:
        (x,) = inputs
        middle, half = (x.low + x.high) / 2, (x.high - x.low) / 2
        center, shifted = self.plain(torch.cat([x.center, middle])).chunk(2)
        unit = self._unit(x.center, center)
        grown = torch.cat([half + unit * (middle.abs() + half), x.rest + unit * x.center.abs()])
        radius, rest = self._absolute(grown).chunk(2)
        slack = 0.0 if self.bias is None else unit * self.bias.abs()
        radius, rest = (t * (1 + unit) + slack + 1e-300 for t in (radius, rest))
        return Span(center, shifted - radius, shifted + radius, rest)

    def backward(self, slope: Span, *inputs: Span) -> tuple[Span, ...]:
        like = inputs[0].center
        middle, half = (slope.low + slope.high) / 2, (slope.high - slope.low) / 2
        unit = self._unit(like, slope.center)
        center, shifted = self._back(like, torch.cat([slope.center, middle]), False).chunk(2)
        grown = torch.cat([half + unit * (middle.abs() + half), slope.rest + unit * slope.center.abs()])
        radius, rest = (t * (1 + unit) + 1e-300 for t in self._back(like, grown, True).chunk(2))
        return (Span(center, shifted - radius, shifted + radius, rest),)

    def above(self, rows: Tensor, *inputs: Span) -> tuple[tuple[Tensor, ...], Tensor]:
        (x,) = inputs
        size = self._absolute(x.size)
        new = self._back(x.center, rows.flatten(0, 1), False).view(*rows.shape[:2], *x.center.shape[1:])
        constant = torch.zeros(rows.shape[:2], dtype=rows.dtype, device=rows.device)
        if self.bias is not None:
            size = size + self.bias.abs()
            constant = dot(rows, self.bias.expand_as(rows[0]))
        # Rounding changes the new rows, and so the function, by no more than this anywhere on the set.
        return (new,), constant + 2 * self._unit(x.center, size) * dot(rows.abs(), size)


@dataclass(frozen=True)
class Rectify(Layer):
    """ReLU, or softplus with a beta."""

    beta: float | None = None

    def plain(self, *inputs: Tensor) -> Tensor:
        # Smooth as far as float64 reaches; PyTorch's own cut at 20 is within the spans.
        return F.relu(inputs[0]) if self.beta is None else F.softplus(inputs[0], self.beta, threshold=500.0)

    def forward(self, *inputs: Span) -> Span:
        (x,) = inputs
        center, low, high = (self.plain(v) for v in (x.center, x.low, x.high))
        if self.beta is None:
            kink = torch.where(x.center > 0, (-x.low).clamp_min(0), x.high.clamp_min(0))
            return Span(center, low, high, torch.where(x.center > 0, x.rest, 0.0) + kink)
        slope = torch.sigmoid(self.beta * x.center)
        # Above its tangent by what it is at the farther end, or by Taylor, which rounds less on narrow spans.
        ends = [(v, v - x.center) for v in (x.low, x.high)]
        above = torch.stack([self.plain(v) - center - slope * by for v, by in ends]).amax(0).clamp_min(0)
        above = above + 64 * UNIT * (x.size + 1 / self.beta)
        bent = torch.minimum(0.5 * self._bend(x) * x.radius.square(), above) + self._snap(x) / self.beta
        return widen(Span(center, low, high + self._snap(x) / self.beta, slope * x.rest + bent), 32)

    def slopes(self, x: Span) -> Span:
        """Its derivative over the set."""
        if self.beta is None:
            center, low, high = ((v > 0).to(v.dtype) for v in (x.center, x.low, x.high))
            return Span(center, low, high, high - low)
        center, low, high = (torch.sigmoid(self.beta * v) for v in (x.center, x.low, x.high))
        second = self.beta * center * (1 - center)
        # It is farthest from its tangent at an end, or where its own slope is the same again: at minus the center.
        mirror = torch.where((x.low <= -x.center) & (-x.center <= x.high), -x.center, x.center)
        off = torch.stack(
            [torch.sigmoid(self.beta * v) - center - second * (v - x.center) for v in (x.low, x.high, mirror)]
        )
        most = off.abs().amax(0) + 64 * UNIT * (1 + self.beta * x.radius)
        bent = torch.minimum(0.5 * self._third(x) * x.radius.square(), most)
        rest = second * x.rest + bent + self._snap(x)
        return widen(Span(center, low, high + self._snap(x), rest), 32)

    def backward(self, slope: Span, *inputs: Span) -> tuple[Span, ...]:
        return (product(slope, self.slopes(inputs[0])),)

    def _snap(self, x: Span) -> Tensor:
        assert self.beta is not None
        return torch.where(self.beta * x.high > 19.9, _SNAP, 0.0).to(x.high)

    def _bend(self, x: Span) -> Tensor:
        """The largest second derivative of softplus between low and high: at the point nearest to 0."""
        assert self.beta is not None
        nearest = torch.maximum(x.low, torch.minimum(x.high, torch.zeros_like(x.low)))
        s = torch.sigmoid(self.beta * nearest)
        return self.beta * (s * (1 - s) + _FLAT)

    def _third(self, x: Span) -> Tensor:
        """The largest absolute third derivative of softplus between low and high.

        With s = sigmoid(beta x) it is beta^2 s (1 - s) |1 - 2 s|, largest at beta x = ± log(2 + sqrt(3)).
        """
        assert self.beta is not None
        peak = 1.3169578969248166 / self.beta
        ends = []
        for v in (x.low, x.high):
            s = torch.sigmoid(self.beta * v)
            ends.append(s * (1 - s) * (1 - 2 * s).abs())
        within = ((x.low <= peak) & (x.high >= peak)) | ((x.low <= -peak) & (x.high >= -peak))
        most = torch.where(within, 0.09622504486493764, torch.maximum(*ends))
        return self.beta**2 * (most + _FLAT)

    def above(self, rows: Tensor, *inputs: Span) -> tuple[tuple[Tensor, ...], Tensor]:
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

    def forward(self, *inputs: Span) -> Span:
        return total(inputs)

    def backward(self, slope: Span, *inputs: Span) -> tuple[Span, ...]:
        return (slope, slope)

    def above(self, rows: Tensor, *inputs: Span) -> tuple[tuple[Tensor, ...], Tensor]:
        slack = 8 * UNIT * dot(rows.abs(), inputs[0].size + inputs[1].size)
        return (rows, rows), slack
