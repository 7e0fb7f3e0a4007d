"""Which class a targeted attack is to reach."""

from __future__ import annotations

import torch
from torch import Tensor

from steadygrad import randomness
from steadygrad.arguments import Classes, check_labels
from steadygrad.errors import UsageError, unknown_name

TARGETS = ("least-likely", "second-best", "random")
Target = Classes | str | None


def resolve_target(target: Target, logits: Tensor, y: Tensor, seeds: Tensor) -> Tensor | None:
    """Target labels (N,): given ones checked, or chosen by rule from the clean logits (N, K).

    "least-likely" and "second-best" never choose the true label; "random" draws another class
    uniformly by the sample's seed.
    """
    if target is None:
        return None
    classes = logits.shape[1]
    if isinstance(target, Tensor):
        check_target(target, y)
        if not bool(((target >= 0) & (target < classes)).all()):
            raise UsageError(f"target must hold labels 0..{classes - 1}, got {int(target.min())}..{int(target.max())}")
        return target.to(y.device, torch.int64)
    if target == "least-likely":
        return logits.scatter(1, y[:, None], torch.inf).argmin(1)
    if target == "second-best":
        return logits.scatter(1, y[:, None], -torch.inf).argmax(1)
    if target == "random":
        ones = torch.empty(len(y), 1, device=y.device)
        # A number just below 1 may be rounded up to the number of classes, and so to the label itself.
        step = (randomness.uniform(seeds, ones, draw=-1).squeeze(1) * (classes - 1)).long().clamp_max(classes - 2)
        return (y + 1 + step) % classes
    raise unknown_name("target", target, TARGETS)


def check_target(target: Tensor, y: Tensor) -> None:
    """Refuse target labels that are not integers (N,)."""
    check_labels("target", target, len(y))
