"""Kinds of values that are more than their type: class names, devices, arrays and numbers, one per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from steadygrad.errors import UsageError
from steadygrad.values import Reader, refuse, scalar, tensor


def _names(name: str, value: Any) -> Any:
    number = scalar(value)
    if isinstance(number, int) and not isinstance(number, bool):
        return number if 2 <= number <= MOST_CLASSES else refuse(name, value, ClassNames)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    texts = isinstance(value, list | tuple | range) and all(isinstance(v, str | int) for v in value)
    return tuple(map(str, value)) if texts and len(value) else refuse(name, value, ClassNames)


def _numbers(name: str, value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    try:
        found = None if isinstance(value, str | bytes | dict | set) or callable(value) else np.asarray(value)
    except (ValueError, TypeError):
        found = None
    if found is None or found.dtype.kind not in "biuf" or found.ndim != 1:
        return refuse(name, value, Numbers)
    return found


def _array(name: str, value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray):
        return value  # large ones may lie in a file
    return tensor(name, value)


ArrayOf = Annotated[Tensor | NDArray[Any], Reader("an array or a tensor", _array)]
"""A tensor or an array as it is; lists as a tensor."""
Numbers = Annotated[ArrayLike, Reader("a list or an array (N,) of numbers", _numbers)]
"""Numbers, one per sample."""


def _device(name: str, value: Any) -> Any:
    if not isinstance(value, str | torch.device):
        return refuse(name, value, Device)
    try:
        torch.zeros(0, device=value)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{name} must be a device of this machine, such as cpu or cuda, got {value!r}: {reason}"
        ) from None
    return value


Device = Annotated[str, Reader("a device such as cpu or cuda", _device)]
"""Where to compute: a device that this machine has."""
MOST_CLASSES = 1_000_000
"""More than any data set has; their names take some 60 MB."""
ClassNames = Annotated[int | Sequence[str], Reader("a number from 2 to 1,000,000, or a list of names", _names)]
"""Classes: how many, or what they are called."""
