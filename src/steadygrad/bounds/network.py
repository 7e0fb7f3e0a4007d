"""A network as layers in a row, in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.bounds.layers import Affine, Layer, Rectify

__all__ = ["At", "Builder", "Network", "linear", "times"]


class Network(nn.Module):
    """Layers in order; value 0 is the input, value i + 1 the output of layer i, the last one the logits."""

    def __init__(self, steps: list[tuple[Layer, tuple[int, ...]]]) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of float64 inputs (N, *)."""
        values = [x]
        for layer, inputs in self.steps:
            values.append(layer.plain(*(values[i] for i in inputs)))
        return values[-1]


@dataclass(frozen=True)
class At:
    """Stands for the value at this place."""

    place: int


@dataclass
class Builder:
    """Layers put one after another, with what they give for one sample: shapes and constants follow from that."""

    sample: Tensor
    beta: float | None
    steps: list[tuple[Layer, tuple[int, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.samples = [self.sample]

    def put(self, layer: Layer, *inputs: int) -> int:
        with torch.no_grad():
            self.samples.append(layer.plain(*(self.samples[i] for i in inputs)))
        self.steps.append((layer, inputs))
        return len(self.samples) - 1

    def affine(self, at: int, function: Callable[..., Tensor], weight: Any = None, bias: Any = None) -> int:
        weight, bias = (None if v is None else v.detach().double() for v in (weight, bias))
        return self.put(Affine(function, weight, bias), at)

    def rectify(self, at: int, beta: float | None = None) -> int:
        return self.put(Rectify(beta if beta is not None else self.beta), at)

    def reshape(self, at: int, shape: tuple[int, ...]) -> int:
        if tuple(self.samples[at].shape[1:]) == shape:
            return at
        return self.affine(at, functools.partial(_reshape, shape=shape))


def _reshape(x: Tensor, weight: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    return x.reshape(len(x), *shape)


def times(x: Tensor, weight: Tensor | None) -> Tensor:
    """x times a weight, entry by entry."""
    assert weight is not None
    return x * weight


def linear(x: Tensor, weight: Tensor | None) -> Tensor:
    """x (N, *, I) times a weight (O, I), transposed."""
    assert weight is not None
    return F.linear(x, weight)
