"""The state of a training run in one safetensors file, whole or not at all; nothing is pickled.

There is no random state to keep: all that is random follows from the seed, the epoch and the step.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.errors import Failure, UsageError
from steadygrad.files import bytes_of, read_tensors, write_tensors

NAME, BEFORE = "checkpoint.safetensors", "checkpoint-before.safetensors"
"""The last checkpoint, and the one before it, from which a run goes on if the last one is damaged."""


@dataclass
class Progress:
    """How far a run has come: `step` steps of `epoch` are done, and all epochs before it.

    `sums` are the loss terms of the epoch so far, added up over samples, `best` the weights that were best on the
    validation data, and `memory` is `State.memory`.
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, Tensor] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] | None = None
    best_epoch: int = 0
    best_score: float = -1.0
    scaler: dict[str, Any] = field(default_factory=dict)


def fingerprint(module: nn.Module) -> str:
    """Short hash of all weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()[:20]


def save(folder: Path, run: str, module: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write the checkpoint of a run into its folder; the last one becomes the one before."""
    tensors = _prefixed("model", module.state_dict()) | _prefixed("best", progress.best or {})
    tensors |= _prefixed("sums", progress.sums) | _prefixed("memory", progress.memory)
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= _prefixed(f"optimizer.{index}", {k: v for k, v in values.items() if isinstance(v, Tensor)})
    plain = {k: v for k, v in vars(progress).items() if k not in ("best", "sums", "memory")}
    write_tensors(folder / NAME, tensors, {"run": run, "progress": plain}, before=folder / BEFORE)


def load(
    folder: Path, run: str, module: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> Progress | None:
    """Restore the module and the optimizer from the folder's last sound checkpoint; None where there is none.

    Raises:
        UsageError: it belongs to another configuration.
    """
    found = _sound(folder)
    if found is None:
        return None
    path, tensors, about = found
    if about.get("run") != run:
        raise UsageError(f"{path} is from another configuration: choose another --out, or delete it")
    module.load_state_dict(_under("model", tensors))
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimizer", tensors).items():
        index, _, part = name.partition(".")
        state.setdefault(int(index), {})[part] = _like(weights[int(index)], tensor)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    progress = Progress(**about["progress"])
    progress.best = _under("best", tensors) or None
    for name in ("sums", "memory"):
        setattr(progress, name, {k: tensor.to(device) for k, tensor in _under(name, tensors).items()})
    return progress


def _sound(folder: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """The last checkpoint that can be read; a line says which one is damaged."""
    for path, then in ((folder / NAME, "the one before is taken"), (folder / BEFORE, "training begins anew")):
        try:
            if path.exists():
                return path, *read_tensors(path)
        except Failure as error:
            logging.getLogger("steadygrad").warning("%s; %s", error, then)
    return None


def _like(weight: Tensor, tensor: Tensor) -> Tensor:
    """A tensor of an optimizer's state in the memory layout of its weight, which a fused optimizer relies on."""
    return torch.empty_like(weight, dtype=tensor.dtype).copy_(tensor) if tensor.shape == weight.shape else tensor


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(prefix + ".")}
