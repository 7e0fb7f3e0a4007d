"""Layers on intervals, forwards and backwards, and linear functions that bound them."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from steadygrad.bounds.certified.intervals import TINY, UNIT, Interval, dot, total
from steadygrad.threat import per_sample

UNDERFLOW = 2.0**-125
"""More than a product of float32 numbers loses that is too small for them."""

Map = Callable[[Tensor], Tensor]
Transposed = Callable[[Tensor, Any, torch.Size], Tensor]
"""Slopes with respect to inputs of a shape, from those with respect to the output, and a weight."""
Box = tuple[Tensor, Tensor]
"""The least and the largest values (N, *)."""


class Layer(abc.ABC):
    """A layer with one or more inputs."""

    nonlinear: ClassVar[bool] = False
    """Whether it leaves something out to first order."""

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

    @abc.abstractmethod
    def box(self, *inputs: Box) -> Box:
        """Its output over the set but for rounding, with a graph."""

    @abc.abstractmethod
    def rounded(self, unit: float, errors: Sequence[Tensor], *inputs: Interval) -> Tensor:
        """How far its output (N, *) is off in arithmetic of this unit, where the inputs are off by errors (N, *)."""

    @abc.abstractmethod
    def moved(self, moves: Sequence[Tensor], *inputs: Interval) -> tuple[Tensor, Tensor]:
        """How far the output moves in l2, (N,), and its entries, (N, *), where the inputs move by (N,) in l2."""


@dataclass(frozen=True)
class Affine(Layer):
    """function(x, weight) + bias, linear in x and in the weight; without a weight, none may be negative (a mean)."""

    function: Callable[[Tensor, Any], Tensor]
    weight: Tensor | None = None
    bias: Tensor | None = None
    terms: int | None = None  # in each sum, at most; None: as many as the input has entries
    transposed: Transposed | None = None  # the same backwards; None: by a derivative, for which it runs forward first
    rough: Tensor | None = None  # the sizes of what the bias is computed from, if it is more than a number

    def plain(self, *inputs: Tensor) -> Tensor:
        out = self.function(inputs[0], self.weight)
        return out if self.bias is None else out + self.bias

    def _absolute(self, x: Tensor) -> Tensor:
        return self.function(x, None if self.weight is None else self.weight.abs())

    def _back(self, slope: Tensor, like: Tensor, *, absolute: bool = False) -> Tensor:
        """Slopes with respect to inputs of the shape of `like`, from those with respect to the output."""
        if self.transposed is not None and self.weight is not None:
            weight = self.weight.abs() if absolute else self.weight
            return self.transposed(slope, weight, torch.Size([len(slope), *like.shape[1:]]))
        with torch.enable_grad():
            x = torch.zeros(len(slope), *like.shape[1:], dtype=slope.dtype, device=slope.device).requires_grad_()
            out = self._absolute(x) if absolute else self.function(x, self.weight)
            (back,) = torch.autograd.grad(
                out,
                x,
                slope,
                create_graph=slope.requires_grad or (self.weight is not None and self.weight.requires_grad),
            )
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

    def box(self, *inputs: Box) -> Box:
        ((low, high),) = inputs
        middle, half = self.plain((low + high) / 2), self._absolute((high - low) / 2)
        return middle - half, middle + half

    def backward(self, slope: Interval, *inputs: Interval) -> tuple[Interval, ...]:
        back = functools.partial(self._back, like=inputs[0].center)
        return (self._through(slope, back, functools.partial(back, absolute=True)),)

    def above(self, rows: Tensor, *inputs: Interval) -> tuple[tuple[Tensor, ...], Tensor]:
        (x,) = inputs
        size = self._absolute(x.size)
        size = size if self.bias is None else size + self.bias.abs()
        new, constant = self.back(rows, x.center)
        # Rounding changes the new rows, and so the function, by no more than this anywhere on the set.
        return (new,), constant + 2 * self._unit(x.center, size) * dot(rows.abs(), size)

    def back(self, rows: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Linear functions (R, N, *) of the output as functions of the input, of the shape of `like`, and constants."""
        new = self._back(rows.flatten(0, 1), like).view(*rows.shape[:2], *like.shape[1:])
        if self.bias is None:
            return new, rows.new_zeros(rows.shape[:2])
        return new, dot(rows, self.bias.expand_as(rows[0]))

    def rounded(self, unit: float, errors: Sequence[Tensor], *inputs: Interval) -> Tensor:
        (error,), (x,) = errors, inputs
        terms = x.center[0].numel() if self.terms is None else self.terms
        bias = self.rough if self.rough is not None else self.bias
        share = 2 * (terms + (bias is not None) * 4) * unit
        off = self._absolute(error + share * (x.size + error)) + terms * UNDERFLOW
        return off if bias is None else off + share * bias.abs()

    def moved(self, moves: Sequence[Tensor], *inputs: Interval) -> tuple[Tensor, Tensor]:
        whole, entries = self._norms(inputs[0].center[:1])
        return moves[0] * whole, per_sample(moves[0], entries) * entries

    def _norms(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """At least the largest l2 norm of the output, (), and of its entries, (1, *), for inputs of norm 1."""
        ones = torch.ones_like(like)
        rows = self._absolute(ones)
        columns = self._back(torch.ones_like(rows), like, absolute=True)
        whole = (rows.max() * columns.max()).sqrt()
        if self.weight is not None:
            rows = self.function(ones, self.weight.square()).clamp_min(0).sqrt()
            whole = torch.minimum(whole, torch.linalg.vector_norm(rows))
        return whole * (1 + 2.0**-40), rows * (1 + 2.0**-40) + TINY


@dataclass(frozen=True)
class Add(Layer):
    """The sum of two values."""

    def plain(self, *inputs: Tensor) -> Tensor:
        return inputs[0] + inputs[1]

    def forward(self, *inputs: Interval) -> Interval:
        return total(inputs)

    def box(self, *inputs: Box) -> Box:
        (a, b), (c, d) = inputs
        return a + c, b + d

    def backward(self, slope: Interval, *inputs: Interval) -> tuple[Interval, ...]:
        return (slope, slope)

    def above(self, rows: Tensor, *inputs: Interval) -> tuple[tuple[Tensor, ...], Tensor]:
        slack = 8 * UNIT * dot(rows.abs(), inputs[0].size + inputs[1].size)
        return (rows, rows), slack

    def rounded(self, unit: float, errors: Sequence[Tensor], *inputs: Interval) -> Tensor:
        return sum(errors) + 2 * unit * (inputs[0].size + inputs[1].size)

    def moved(self, moves: Sequence[Tensor], *inputs: Interval) -> tuple[Tensor, Tensor]:
        move = moves[0] + moves[1]
        return move, per_sample(move, inputs[0].center).expand_as(inputs[0].center)


@dataclass(frozen=True)
class Concatenate(Layer):
    """Values beside each other along a dimension other than the first."""

    dim: int

    def _parts(self, whole: Tensor, inputs: Sequence[Interval], dim: int) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = torch.split(whole, [i.center.shape[self.dim] for i in inputs], dim)
        return parts

    def plain(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.dim)

    def forward(self, *inputs: Interval) -> Interval:
        return Interval(*(self.plain(*(getattr(i, f.name) for i in inputs)) for f in fields(Interval)))

    def box(self, *inputs: Box) -> Box:
        low, high = (self.plain(*ends) for ends in zip(*inputs))
        return low, high

    def backward(self, slope: Interval, *inputs: Interval) -> tuple[Interval, ...]:
        parts = [self._parts(getattr(slope, f.name), inputs, self.dim) for f in fields(Interval)]
        return tuple(Interval(*part) for part in zip(*parts))

    def above(self, rows: Tensor, *inputs: Interval) -> tuple[tuple[Tensor, ...], Tensor]:
        return self._parts(rows, inputs, self.dim + 1), rows.new_zeros(rows.shape[:2])

    def rounded(self, unit: float, errors: Sequence[Tensor], *inputs: Interval) -> Tensor:
        return self.plain(*errors)

    def moved(self, moves: Sequence[Tensor], *inputs: Interval) -> tuple[Tensor, Tensor]:
        parts = [per_sample(m, i.center).expand_as(i.center) for m, i in zip(moves, inputs)]
        return torch.stack(list(moves)).square().sum(0).sqrt(), self.plain(*parts)
