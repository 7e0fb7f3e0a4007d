"""Neuron sensitivity and its penalty by loops over samples, neurons and entries.

A layer is given as the function from one input to its output there, so that nothing of the library is needed
to look inside a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

Layer = Callable[[Tensor], Tensor]


def entries(output: Tensor) -> list[list[float]]:
    """The entries of each neuron of one sample's output (1, *): channels of maps, units, units over tokens."""
    value = output.detach()[0]
    if value.ndim == 1:
        return [[float(v)] for v in value]
    if value.ndim == 2:  # tokens, units
        return [[float(value[t, m]) for t in range(value.shape[0])] for m in range(value.shape[1])]
    return [[float(v) for v in channel.reshape(-1)] for channel in value]


def change(layer: Layer, x: Tensor, x_adv: Tensor) -> list[float]:
    """By neuron: l1 distance of its entries at one input (1, *) and at its partner, over their number."""
    out = []
    for benign, moved in zip(entries(layer(x)), entries(layer(x_adv)), strict=True):
        total = 0.0
        for a, b in zip(benign, moved, strict=True):
            total += abs(a - b)
        out.append(total / len(benign))
    return out


def sensitivity(layer: Layer, x: Tensor, x_adv: Tensor) -> list[float]:
    """By neuron: the mean of its change over the pairs."""
    rows = [change(layer, x[i : i + 1], x_adv[i : i + 1]) for i in range(len(x))]
    return [sum(row[m] for row in rows) / len(rows) for m in range(len(rows[0]))]


def most(values: Sequence[float], share: float) -> list[int]:
    """The places of the largest values, a share of them rounded up."""
    count = max(1, math.ceil(share * len(values) - 1e-9))
    return sorted(range(len(values)), key=lambda m: -values[m])[:count]


def penalty(layers: Mapping[str, Layer], chosen: Mapping[str, Sequence[int]], x: Tensor, x_adv: Tensor) -> float:
    """Mean over samples of the sum over layers of the mean change of the chosen neurons."""
    total = 0.0
    for i in range(len(x)):
        for name, layer in layers.items():
            moved = change(layer, x[i : i + 1], x_adv[i : i + 1])
            total += sum(moved[m] for m in chosen[name]) / len(chosen[name])
    return total / len(x)
