"""A network as layers in a row, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steadygrad.bounds.certified.layers import Affine, Layer, Rectifier


@dataclass(frozen=True)
class Network:
    """Layers in order; value 0 is the input, value i + 1 the output of layer i, the last one the logits."""

    steps: list[tuple[Layer, tuple[int, ...]]]

    @property
    def curved(self) -> bool:
        """Whether a layer has a second derivative."""
        return any(isinstance(layer, Rectifier) and layer.beta is not None for layer, _ in self.steps)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) of float64 inputs (N, *)."""
        values = [x]
        for layer, inputs in self.steps:
            values.append(layer.plain(*(values[i] for i in inputs)))
        return values[-1]


@dataclass(frozen=True)
class Value:
    """A value in a network: its place, and what it is for one sample, which shapes and constants follow from."""

    place: int
    sample: Tensor


@dataclass
class Builder:
    """Puts layers one after another; rectifiers become softplus with `beta` if that is given.

    With `soft_pools` maxima are smoothed too, of which there are no bounds.
    """

    beta: float | None
    soft_pools: bool = False
    steps: list[tuple[Layer, tuple[int, ...]]] = field(default_factory=list)

    def put(self, layer: Layer, *inputs: Value) -> Value:
        """The output of a layer."""
        with torch.no_grad():
            sample = layer.plain(*(value.sample for value in inputs))
        self.steps.append((layer, tuple(value.place for value in inputs)))
        return Value(len(self.steps), sample)

    def affine(self, x: Value, function: Callable[[Tensor, Any], Tensor], weight: Any, bias: Any = None) -> Value:
        """function(x, weight) + bias, linear in both."""
        weight, bias = (None if v is None else v.detach().double() for v in (weight, bias))
        return self.put(Affine(function, weight, bias), x)

    def unweighted(self, x: Value, function: Callable[[Tensor], Tensor]) -> Value:
        """function(x), linear with weights that are not negative: means, another shape."""
        return self.put(Affine(lambda v, _: function(v)), x)

    def scale(self, x: Value, factor: Tensor, constant: Tensor) -> Value:
        """x times a factor plus a constant, entry by entry."""
        return self.affine(x, torch.mul, factor, constant)

    def rectify(self, x: Value, beta: float | None = None) -> Value:
        """ReLU, or softplus with a beta."""
        return self.put(Rectifier(beta if beta is not None else self.beta), x)

    def reshape(self, x: Value, shape: tuple[int, ...]) -> Value:
        """x (N, *) as (N, *shape)."""
        if tuple(x.sample.shape[1:]) == shape:
            return x
        return self.unweighted(x, lambda v: v.reshape(len(v), *shape))
