"""How many samples a model takes at once: as many as fit into a budget of memory. No result depends on it."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from steadygrad.arguments import arithmetic
from steadygrad.errors import UsageError, out_of_memory
from steadygrad.values import Count

_ENTRIES, _ENTRIES_ELSEWHERE = 3 * 2**19, 2**23
"""Of inputs in one pass where a model was not tried: 10 images of 3 x 224 x 224 on a CPU, 55 elsewhere."""
_BESIDE = 1.3
"""What a pass takes at its peak, in units of what its graph holds: gradients and temporary results come to that."""
_STATE = 16
"""Tensors of the size of an input that an attack holds for a sample beside its passes."""
_TWICE = 5
"""A graph that is differentiated twice holds so many times what one holds that is differentiated once."""
_MOST = 5 * 2**28  # bytes: 1.25 GB, of a CPU by default
_UNITS = {"": 1, "B": 1, "K": 2**10, "KB": 2**10, "M": 2**20, "MB": 2**20, "G": 2**30, "GB": 2**30}
_fit: ContextVar[int | None] = ContextVar("samples that fit", default=None)


@arithmetic
def at_once(most: Count, shape: Sequence[int], device: torch.device | None = None, *, order: int = 1) -> int:
    """How many samples of a shape (*) are taken in one pass: `most`, and fewer of large ones, which fill the memory.

    Within `room_for` as many as the model was found to have room for; elsewhere the shape alone decides.

    Args:
        order: 2 where the gradient is differentiated again.

    >>> at_once(200, (3, 32, 32)), at_once(200, (3, 224, 224)), at_once(200, (3, 224, 224), order=2)
    (200, 10, 2)
    """
    fit = _fit.get()
    if fit is None:
        entries = _ENTRIES if device is None or device.type == "cpu" else _ENTRIES_ELSEWHERE
        fit = entries // max(1, math.prod(shape))
    return max(1, min(most, fit // _TWICE if order == 2 else fit))


@contextlib.contextmanager
def room_for(samples: int | None) -> Iterator[None]:
    """Within the block so many samples fit at once into a pass of first order; None where that is not known."""
    token = _fit.set(samples)
    try:
        yield
    finally:
        _fit.reset(token)


@contextlib.contextmanager
def room_times(factor: int) -> Iterator[None]:
    """Within the block so many times as many samples fit, where that is known: of what a sample has inside a model."""
    fit = _fit.get()
    with room_for(None if fit is None else fit * factor):
        yield


def need(model: nn.Module, x: Tensor, *, order: int = 1) -> float | None:
    """Bytes that a pass of a frozen model holds for a sample at its peak, by one forward of samples (N, *).

    Attention counts as plain matrix products, which second derivatives need. None where that does not tell: no graph
    is made, or the model fails.
    """
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            held = graph_of(model, x) / len(x)
    except Exception as error:
        return math.inf if out_of_memory(error) else None
    return (_BESIDE * held + _STATE * x[0].nbytes) * (_TWICE if order == 2 else 1) if held else None


def fitting(model: nn.Module, x: Tensor, budget: float) -> int | None:
    """How many samples of a frozen model fit into a budget of bytes; None where that is not known. See `need`."""
    one = need(model, x)
    return None if one is None else max(1, int(budget / one))


def graph_of(model: nn.Module, x: Tensor) -> int:
    """Bytes that the graph of a forward of samples (N, *) holds, those of the weights aside.

    >>> graph_of(nn.Sequential(nn.Linear(2, 8), nn.Tanh()), torch.zeros(4, 2))  # the inputs, and what tanh gives
    160
    """
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address comes twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = model(x.detach().clone().requires_grad_())
    del kept
    return sum(seen.values())


def budget(device: torch.device, given: float | None = None) -> float:
    """Bytes for what one pass holds: those given, else on a CPU 1.25 GB and at most a quarter of the memory.

    On a GPU two thirds of what is free.
    """
    if given is not None:
        return given
    if device.type == "cuda":
        # What PyTorch has in store is free as well.
        stored = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + stored) * 2 / 3
    return min(_MOST, installed(device) / 4)


def installed(device: torch.device) -> float:
    """Bytes of memory that this process may use: those of a GPU, else of the machine or of its control group."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            found.append(int(file.read()))
    return float(min(found, default=4 * _MOST))


def size_of(value: Any) -> Any:
    """The bytes that a text such as 2GB or 500MB says; anything that is no text as it is.

    >>> size_of("1.5GB"), size_of(1000)
    (1610612736, 1000)
    """
    if isinstance(value, bool):
        raise UsageError(f"memory must be a number of bytes such as 2GB or 500MB, got {value!r}")
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", value)
    unit = None if found is None else _UNITS.get(found[2].upper().replace("IB", "B"))
    if found is None or unit is None:
        raise UsageError(f"memory must be a number of bytes such as 2GB or 500MB, got {value!r}")
    return int(float(found[1]) * unit)


def written(size: float) -> str:
    """Bytes in words.

    >>> written(1610612736), written(3e6)
    ('1.5 GB', '2.9 MB')
    """
    unit = "GB" if size >= 2**30 else "MB"
    return f"{size / _UNITS[unit]:.1f} {unit}"
