"""In which type of numbers is computed: the widest of a device."""

from __future__ import annotations

import torch
from torch import Tensor

NARROW = frozenset({"mps"})
"""Kinds of devices that have no float64."""


def wide(device: torch.device) -> torch.dtype:
    """The widest type of a device: float64, and float32 where there is none.

    >>> wide(torch.device("cpu")), wide(torch.device("mps"))
    (torch.float64, torch.float32)
    """
    return torch.float32 if device.type in NARROW else torch.float64


def widened(x: Tensor) -> Tensor:
    """A tensor in the widest type of its device.

    >>> widened(torch.tensor([True])).dtype
    torch.float64
    """
    return x.to(wide(x.device))


def exact(x: Tensor) -> Tensor:
    """A tensor in float64: on its device or, where that has none, on the CPU.

    >>> exact(torch.zeros(2)).dtype
    torch.float64
    """
    return (x.cpu() if x.device.type in NARROW else x).double()


def moved(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, in its own type or, where the device has it not, in its widest one."""
    return x.to(device, wide(device) if x.dtype == torch.float64 else x.dtype)
