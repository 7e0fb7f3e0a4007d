"""SuperDeepFool: DeepFool's boundary point, turned until its change is perpendicular to the boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.deepfool import past_boundary
from steadygrad.attacks.fab import pull_back
from steadygrad.attacks.run import Run
from steadygrad.threat import per_sample
from steadygrad.values import BelowOne, Count


@ATTACKS.register(
    "super_deepfool",
    summary="l2: DeepFool to the boundary, then the change projected onto the slope there, in turn",
    reference="Abdolahpourrostam, Abroshan and Moosavi-Dezfooli 2023, arXiv 2303.12481",
    cost="steps x (1 forward + `candidates` backwards) + 5 forwards",
    norms=("l2",),
)
@dataclass(frozen=True)
class SuperDeepFool(Attack):
    """Nearer than DeepFool: at the nearest wrong point the change runs along the slope, as DeepFool's does not.

    Where the point is right, a step of DeepFool; where it is wrong, the change from the clean input is replaced by
    its projection onto the slope there. A sample is done once a projected point is still wrong. At the end the
    nearest wrong point is drawn back to just beyond the boundary.

    Args:
        steps: at most so many, of both kinds together.
        overshoot: share by which the change is lengthened in a step of DeepFool.
        candidates: classes that are considered in each step, those with the largest logits there.

    >>> SuperDeepFool().steps
    30
    """

    steps: Count = 30
    overshoot: BelowOne = 0.005
    candidates: Count = 3
    minimum_norm: ClassVar[bool] = True

    def search(self, run: Run) -> Tensor | None:
        points, projected = run.x, torch.zeros_like(run.y, dtype=torch.bool)
        for _ in range(self.steps):
            gaps, slopes = run.differences(points, self.candidates)
            points, gaps, slopes, projected = run.keep(~(run.wrong & projected), points, gaps, slopes, projected)
            if len(run.index) == 0:
                break
            beyond = past_boundary(run, points, gaps, slopes, self.overshoot)
            # The first slope is that of the class predicted at a wrong point.
            turned = run.x + _along(points - run.x, slopes[:, 0])
            points = torch.where(per_sample(run.wrong, points), turned.clamp(*run.threat.bounds), beyond)
            projected = run.wrong
        else:
            run.look(points)
        run.restart()
        pull_back(run)
        return None


def _along(change: Tensor, slope: Tensor) -> Tensor:
    """The part of a change (A, *) along a slope (A, *)."""
    flat, way = change.flatten(1), slope.flatten(1)
    way = way / way.abs().amax(1, keepdim=True).clamp_min(torch.finfo(way.dtype).tiny)  # or tiny squares would vanish
    share = (flat * way).sum(1, keepdim=True) / way.square().sum(1, keepdim=True).clamp_min(1)
    return (share * way).to(change.dtype).view_as(change)
