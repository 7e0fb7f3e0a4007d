"""The tight-frame penalty from singular values, and what a convolution does to its input as one matrix."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def matrices(layer: nn.Module) -> list[NDArray[np.float64]]:
    """The weight of a layer entry by entry, one matrix per group."""
    weight = layer.weight.detach().numpy()
    groups = getattr(layer, "groups", 1)
    share = len(weight) // groups
    made = []
    for g in range(groups):
        rows = [[float(value) for value in np.nditer(weight[g * share + r])] for r in range(share)]
        made.append(np.array(rows))
    return made


def penalty(layers: list[nn.Module], weight: float, *, scaled: bool = False) -> float:
    """weight / 2 times the sum over layers and singular values s of (s^2 - target)^2."""
    total = 0.0
    for layer in layers:
        target = 1.0 / np.prod(layer.kernel_size) if scaled and hasattr(layer, "kernel_size") else 1.0
        for matrix in matrices(layer):
            total += sum((s * s - target) ** 2 for s in np.linalg.svd(matrix, compute_uv=False))
    return weight / 2 * total


def stretch(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """The largest singular value of the layer without its bias, as a map of inputs of this shape."""
    size = int(np.prod(shape))
    with torch.no_grad():
        zero = layer(torch.zeros(1, *shape, dtype=torch.float64))
        columns = [layer(unit.view(1, *shape)) - zero for unit in torch.eye(size, dtype=torch.float64)]
    return float(np.linalg.svd(torch.stack([c.flatten() for c in columns], 1).numpy(), compute_uv=False)[0])
