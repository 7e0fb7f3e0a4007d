"""A network as layers in a row, in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steadygrad.bounds.certified.curves import Curve
from steadygrad.bounds.certified.layers import Add, Affine, Layer, Transposed
from steadygrad.bounds.certified.shapes import Shape, softplus, straight
from steadygrad.errors import UsageError


@dataclass(frozen=True)
class Network:
    """Layers in order; value 0 is the input, value i + 1 the output of layer i, the last one the logits."""

    steps: list[tuple[Layer, tuple[int, ...]]]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) of float64 inputs (N, *)."""
        return self.values(x)[-1]

    def values(self, x: Tensor) -> list[Tensor]:
        """The inputs (N, *), what every layer gives of them, and at last the logits."""
        values = [x]
        for layer, inputs in self.steps:
            values.append(layer.plain(*(values[i] for i in inputs)))
        return values


@dataclass(frozen=True)
class Value:
    """A value in a network: its place, and what it is for one sample, which shapes and constants follow from."""

    place: int
    sample: Tensor


@dataclass
class Builder:
    """Puts layers one after another; rectifiers become softplus with `beta` if that is given.

    With `soft_pools` maxima are smoothed too, of which there are no bounds. A `live` network keeps the weights in their
    own type and with their gradients, and is read in training mode as in evaluation mode.
    """

    beta: float | None = None
    soft_pools: bool = False
    live: bool = False
    steps: list[tuple[Layer, tuple[int, ...]]] = field(default_factory=list)
    views: dict[int, int] = field(default_factory=dict)  # places whose values lie in the memory of another's
    spoiled: set[int] = field(default_factory=set)  # places whose values were changed in place

    def taken(self, value: Tensor) -> Tensor:
        """A weight, or another number of the model, as the network holds it."""
        return value if self.live else value.detach().double()

    def constant(self, value: Any, like: Tensor) -> Tensor:
        """A number in the type of the network."""
        return torch.as_tensor(value, dtype=like.dtype, device=like.device)

    def put(self, layer: Layer, *inputs: Value) -> Value:
        """The output of a layer."""
        for value in inputs:
            self.check(value)
        with torch.no_grad():
            sample = layer.plain(*(value.sample for value in inputs))
        self.steps.append((layer, tuple(value.place for value in inputs)))
        return Value(len(self.steps), sample)

    def check(self, value: Value) -> None:
        """Refuse a value that was changed in place before it is used."""
        if value.place in self.spoiled:
            raise UsageError(
                "there is no certified bound for a model that changes a value in place and uses the old one, or a view "
                "of it, afterwards: write the operation out of place"
            )

    def spoil(self, value: Value, new: Value) -> None:
        """Mark a value, and all that share its memory, as changed in place: what it is now is the new value."""
        root = self.views.get(value.place, value.place)
        if new.place != value.place:
            self.spoiled |= {p for p in range(len(self.steps) + 1) if self.views.get(p, p) == root} - {new.place}
            self.views[new.place] = new.place

    def affine(
        self,
        x: Value,
        function: Callable[[Tensor, Any], Tensor],
        weight: Any,
        bias: Any = None,
        *,
        terms: int | None = None,
        transposed: Transposed | None = None,
        rough: Tensor | None = None,
    ) -> Value:
        """function(x, weight) + bias, linear in both."""
        weight, bias = (None if v is None else self.taken(v) for v in (weight, bias))
        return self.put(Affine(function, weight, bias, terms, transposed, rough), x)

    def unweighted(self, x: Value, function: Callable[[Tensor], Tensor], terms: int | None = None) -> Value:
        """function(x), linear with weights that are not negative: means, another shape."""
        out = self.put(Affine(lambda v, _: function(v), terms=terms), x)
        if terms == 0:
            self.views[out.place] = self.views.get(x.place, x.place)
        return out

    def scale(self, x: Value, factor: Tensor, constant: Tensor, rough: Tensor | None = None) -> Value:
        """x times a factor plus a constant, entry by entry."""
        return self.affine(x, torch.mul, factor, constant, terms=4, rough=rough)

    def curve(self, x: Value, shape: Shape) -> Value:
        """A scalar function of every entry."""
        return self.put(Curve(shape), x)

    def hinged(self, x: Value, knots: tuple[float, ...], slopes: tuple[float, ...], at: float = 0.0) -> Value:
        """A piecewise linear function with these knots and slopes and its value at the first; smooth with a beta.

        Smooth it is its first line plus a softplus for every knot.
        """
        if self.beta is None:
            return self.curve(x, straight(knots, slopes, at))
        number = functools.partial(self.constant, like=x.sample)
        parts = []
        if slopes[0] or at:
            parts.append(self.scale(x, number(slopes[0]), number(at - slopes[0] * knots[0])))
        for knot, before, after in zip(knots, slopes, slopes[1:]):
            moved = self.scale(x, number(1.0), number(-knot)) if knot else x
            bent = self.curve(moved, softplus(self.beta))
            parts.append(bent if after - before == 1 else self.scale(bent, number(after - before), number(0.0)))
        return functools.reduce(lambda a, b: self.put(Add(), a, b), parts)

    def reshape(self, x: Value, shape: tuple[int, ...]) -> Value:
        """x (N, *) as (N, *shape)."""
        if tuple(x.sample.shape[1:]) == shape:
            return x
        return self.unweighted(x, lambda v: v.reshape(len(v), *shape), terms=0)
