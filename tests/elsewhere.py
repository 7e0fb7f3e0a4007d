"""A device that is none, without float64: tensors that say they are on it, and are computed on the CPU.

Within `Elsewhere` tensors go there by `.to(DEVICE)`. A tensor of float64 there is refused, and so is an operation on
tensors of both places, as an accelerator refuses them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy:0")  # one whose gradients PyTorch computes in the thread of the CPU


class _There(Tensor):
    """A tensor of the device; `here` holds its values."""

    here: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: Tensor) -> _There:
        like: dict[str, Any] = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        made: _There = Tensor._make_wrapper_subclass(cls, here.shape, device=DEVICE, **like)
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(function, args, kwargs or {})

    def tolist(self) -> Any:
        return self.here.tolist()

    def __deepcopy__(self, memo: Any) -> Tensor:
        copied = _There(self.here.clone())
        return torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied


class Elsewhere(TorchDispatchMode):
    """Within the block there is the device."""

    def __enter__(self) -> Any:
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes them on the CPU first, and then moves them
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(function, args, kwargs or {})


def _computed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, given = function.overloadpacket.__name__, [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
    there = [v for v in given if isinstance(v, _There)]
    if there and name not in ("_to_copy", "copy_") and any(v.ndim for v in given if not isinstance(v, _There)):
        raise RuntimeError(f"{name} takes tensors of two devices")
    goes = kwargs.get("device") or (DEVICE if there else torch.device("cpu"))

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor) or torch.device(goes).type != DEVICE.type:
            return value
        if value.dtype == torch.float64:
            raise TypeError(f"{name} makes float64 on a device that has none")
        same = [v for v in there if v.here is value]
        return same[0] if same else _There(value)

    return tree_map(wrapped, function(*tree_map(_here, args), **tree_map(_here, kwargs)))


def _here(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.here if isinstance(value, _There) else value
