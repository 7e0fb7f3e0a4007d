"""What rounding in the model's own arithmetic can add to, or take from, its logits anywhere on a set.

A sum of n products, in any order, is off by at most n u / (1 - n u) of the sum of their sizes; a function of one
number by a few units of it. What a layer's input is off by is carried on by its absolute weights or its steepest slope.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from steadygrad.bounds.certified.intervals import Interval
from steadygrad.bounds.certified.network import Network
from steadygrad.calling import unwrap
from steadygrad.errors import UsageError


def rounding_of_logits(network: Network, intervals: Sequence[Interval], unit: float) -> Tensor:
    """How far logits (N, K) are off where every operation is rounded to a relative error of `unit`."""
    errors = [torch.zeros_like(intervals[0].center)]
    for layer, inputs in network.steps:
        errors.append(layer.rounded(unit, [errors[i] for i in inputs], *(intervals[i] for i in inputs)))
    return errors[-1]


def unit_of(model: nn.Module, x: Tensor) -> float:
    """The unit of the arithmetic in which a model answers inputs x.

    Raises:
        UsageError: a model in half precision, which is too far from exact arithmetic for a certificate.
    """
    numbers = (x, *model.parameters(), *model.buffers())
    types = {v.dtype for v in numbers if v.is_floating_point()}
    if torch.is_autocast_enabled(x.device.type):
        types.add(torch.get_autocast_dtype(x.device.type))
    narrow = sorted(str(dtype) for dtype in types if dtype.itemsize < 4)
    if narrow:
        raise UsageError(
            f"a certified bound holds for exact arithmetic, from which a model in {narrow[0]} is too far: "
            "bound model.float()"
        )
    unit = max(torch.finfo(dtype).eps for dtype in types)
    if torch.float32 in types and torch.get_float32_matmul_precision() != "highest":
        unit = max(unit, torch.finfo(torch.bfloat16).eps)
    if torch.float32 in types and x.is_cuda:  # where convolutions are in TF32 unless one says otherwise
        unit = max(unit, 2.0**-10)
    return unit


def check_reading(model: nn.Module, network: Network, points: Tensor, unit: float) -> None:
    """Refuse layers that give other logits at points (N, *) than the model does, beyond what it may round.

    Raises:
        UsageError: they do: hooks, draws, another arithmetic or a forward that depends on values are not read.
    """
    values = network.values(points.double())
    known = [Interval(v, v, v, torch.zeros_like(v)) for v in values]
    # Twice, as both are rounded.
    off = (model(points).double() - values[-1]).abs() - 2 * rounding_of_logits(network, known, unit)
    if bool((off > 0).any()):
        name, most = type(unwrap(model)).__name__, float(off.max())
        raise UsageError(
            f"there is no certified bound for {name}: the layers read from it give other logits than it does (by "
            f"{most:.3g}); does it have hooks, draw numbers, compute in half precision, or depend on values?"
        )
