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
    types = {x.dtype, *(p.dtype for p in model.parameters() if p.is_floating_point())}
    narrow = sorted(str(dtype) for dtype in types if dtype.itemsize < 4)
    if narrow:
        raise UsageError(
            f"a certified bound holds for exact arithmetic, from which a model in {narrow[0]} is too far: "
            "bound model.float()"
        )
    return max(torch.finfo(dtype).eps for dtype in types)
