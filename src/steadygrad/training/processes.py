"""The device and the other processes of a training run.

The hooks of DistributedDataParallel do not see gradients of input gradients, so the module is not wrapped in it, and
its weight gradients are summed here, in one message per step.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from steadygrad.errors import UsageError


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of that name, if this machine has it.

    Raises:
        UsageError: not the name of a device, or there is none here.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"device must be cpu, cuda, cuda:N or mps, got {device!r}") from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if chosen.type not in count:
        raise UsageError(f"device must be cpu, cuda, cuda:N or mps, got {device!r}")
    if (chosen.index or 0) >= count[chosen.type]:
        found = f"{count[chosen.type]} {chosen.type} device(s) of this machine are visible to PyTorch"
        raise UsageError(
            f"device {device!s} was asked for, but {found}: use the device cpu, or install a matching PyTorch"
        )
    return chosen


class Processes:
    """The processes that train together: this one is `rank` of `size` and computes on `device`.

    Args:
        device: where to train; with several CUDA processes each takes the device of its local rank.
    """

    def __init__(self, device: str | torch.device) -> None:
        from accelerate import PartialState

        chosen, begun = resolve_device(device), torch.distributed.is_available() and torch.distributed.is_initialized()
        state: Any = PartialState(cpu=chosen.type == "cpu")
        if int(state.num_processes) > 1 and not begun:
            atexit.register(_leave)
        self.rank, self.size = int(state.process_index), int(state.num_processes)
        if chosen.type == "cuda" and ":" not in str(chosen):
            chosen = torch.device(
                "cuda", int(state.local_process_index) if self.size > 1 else torch.cuda.current_device()
            )
        self.device = chosen

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()

    def share(self, count: int) -> slice:
        """This process's part of a batch of `count` samples; parts differ by one sample at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def sum_all(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type by their sums over all processes, in one message."""
        if self.size == 1 or not tensors:
            return
        flat = self.sum(torch.cat([t.flatten() for t in tensors]))
        for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def average_buffers(self, module: torch.nn.Module) -> None:
        """Give all processes the mean of their running statistics."""
        floats = [b for b in module.buffers() if b.is_floating_point()]
        for dtype in dict.fromkeys(b.dtype for b in floats):
            group = [b for b in floats if b.dtype == dtype]
            self.sum_all(group)
            for buffer in group if self.size > 1 else []:
                buffer.div_(self.size)

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first process."""
        for tensor in tensors if self.size > 1 else ():
            torch.distributed.broadcast(tensor.detach(), 0)


def _leave() -> None:
    """Leave the group before the interpreter ends, whose order of clearing away may abort the process otherwise."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
