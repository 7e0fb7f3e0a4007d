"""The memory of a training step, told before it is spent."""

from __future__ import annotations

import logging

from torch import Tensor

from steadygrad import memory
from steadygrad.classifier import Classifier, frozen
from steadygrad.defenses import DEFENSES, Defense


def step_bytes(model: Classifier, defense: Defense, x: Tensor, samples: int) -> float:
    """About what a step with so many samples holds, by one forward of a few of them (N, *); 0 where that fails."""
    kinds = {type(member) for member in defense.members}
    order = max((row.order for row in DEFENSES if row.method in kinds), default=1)
    with frozen(model) as subject:
        one = memory.need(subject, x, order=2 if order > 1 else 1)
    return samples * (one or 0)


def tell_need(model: Classifier, defense: Defense, x: Tensor, samples: int) -> None:
    """Warn of steps that may need more than half of the memory."""
    need, there = step_bytes(model, defense, x, samples), memory.installed(x.device)
    if need > there / 2:
        fits = max(1, int(samples * there / 2 / need))
        logging.getLogger("steadygrad").warning(
            "a step of %d samples may hold about %s, of %s that there are: if it fails, take at most %d at once "
            "(accumulate=N goes through a batch in N pieces)",
            samples, memory.written(need), memory.written(there), fits,
        )  # fmt: skip
