"""Sigma-zero: the fewest changed entries, by gradient steps on the margin and a smooth count of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.losses import margin
from steadygrad.attacks.minimum_norm import cosine
from steadygrad.attacks.run import Run
from steadygrad.threat import per_sample
from steadygrad.values import Count, NotNegative, Positive, Share

_PAST, _PAST_SQUARES = 0.9, 0.999  # how much of its averages Adam keeps
_LAST = 0.1  # of the first step


@ATTACKS.register(
    "sigma_zero",
    summary="l0: Adam on the margin and a smooth count of the changed entries; small changes are put back",
    reference="Cinà et al. 2025, arXiv 2402.01879",
    cost="steps x (1 forward + 1 backward)",
    norms=("l0",),
)
@dataclass(frozen=True)
class SigmaZero(Attack):
    """The wrong point with the fewest changed entries.

    The count of changed entries is smoothed to the mean of d^2 / (d^2 + sigma). Its slope is added to that of the
    margin, which leads where the point is not yet wrong and which the paper leaves in its own units; here it is
    measured in those of the clean input, so that the scale of the logits does not matter.

    Args:
        step: the first step of an entry in ranges of the inputs; falls to a tenth.
        sigma: how sharply the smooth count tells a change from none.
        threshold: changes below it, in ranges of the inputs, are put back to zero.
        adapt: how much, in steps, the threshold rises at a wrong point and falls at a right one.

    >>> SigmaZero(steps=50).threshold
    0.3
    """

    steps: Count = 100
    step: Positive = 1.0
    sigma: Positive = 1e-3
    threshold: Share = 0.3
    adapt: NotNegative = 0.01
    minimum_norm: ClassVar[bool] = True

    def search(self, run: Run) -> Tensor | None:
        low, high = run.threat.bounds
        change = torch.zeros_like(run.x, dtype=run.best.dtype)  # in ranges of the inputs, as all below
        mean, square = torch.zeros_like(change), torch.zeros_like(change)
        least = torch.full_like(run.nearest, self.threshold)
        assert run.clean_logits is not None
        clean = margin(run.clean_logits.to(change.dtype), run.y, run.target).abs().clamp_min(1e-30)
        for i in range(self.steps):
            _, slope = run.gradient((run.x + (high - low) * change).to(run.x.dtype), "margin")
            change, slope, mean, square, least, clean = run.drop_solved(change, slope, mean, square, least, clean)
            if len(run.index) == 0:
                return None
            push = self._push(change, slope.to(change.dtype) / per_sample(clean / (high - low), slope), run.wrong)
            mean, square = mean.lerp(push, 1 - _PAST), square.lerp(push * push, 1 - _PAST_SQUARES)
            size = (square / (1 - _PAST_SQUARES ** (i + 1))).sqrt() + 1e-8
            length = cosine(self.step, _LAST * self.step, max(0, i - 1), self.steps)
            change = change - length / (1 - _PAST ** (i + 1)) * mean / size
            change = ((run.x + (high - low) * change).clamp(low, high) - run.x) / (high - low)
            ahead = self.adapt * cosine(self.step, _LAST * self.step, i, self.steps)
            least = (least + torch.where(run.wrong, ahead, -ahead)).clamp(0, 1)
            change = torch.where(change.abs() < per_sample(least, change), 0.0, change)
        return (run.x + (high - low) * change).to(run.x.dtype)

    def _push(self, change: Tensor, slope: Tensor, wrong: Tensor) -> Tensor:
        """The slope (A, *) of the smooth count, and where not yet wrong of the lost margin; its largest entry is 1."""
        count = 2 * self.sigma * change / (change.square() + self.sigma).square() / change[0].numel()
        push = count - torch.where(per_sample(wrong, slope), 0.0, slope)
        return push / per_sample(push.flatten(1).abs().amax(1).clamp_min(1e-12), push)
