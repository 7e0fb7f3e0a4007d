"""DeepFool: step to the nearest boundary of the linearized model until the prediction changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.run import Run
from steadygrad.values import BelowOne, Count

_LEFT = 0.25  # of the way that a step must go at least, or fifty steps might not suffice


@ATTACKS.register(
    "deepfool",
    summary="steps to the nearest linearized boundary; quick estimates of the smallest change",
    reference="Moosavi-Dezfooli, Fawzi and Frossard 2016, arXiv 1511.04599",
    cost="about 4 x (1 forward + `candidates` backwards)",
    norms=("linf", "l2"),
)
@dataclass(frozen=True)
class DeepFool(Attack):
    """At most `steps` steps to the nearest boundary of the linearized model; exact for an affine one in one step.

    Args:
        overshoot: share by which the accumulated change is lengthened, so that the point lies
            beyond the boundary rather than on it. The paper's .02 leaves all points about 1 % farther away, and
            spares one step in eight.
        candidates: classes that are considered in each step, those with the largest logits there.
            Three find the same distances as all of them.

    After each step the point is clipped to the bounds, and the next step makes up for it. Where entries
    at a bound would lose most of the step, they do not take part in it.

    >>> DeepFool().candidates
    3
    """

    steps: Count = 50
    overshoot: BelowOne = 0.005
    candidates: Count = 3
    minimum_norm: ClassVar[bool] = True

    def search(self, run: Run) -> Tensor | None:
        points = run.x
        for _ in range(self.steps):
            gaps, slopes = run.differences(points, self.candidates)
            points, gaps, slopes = run.keep(~run.wrong, points, gaps, slopes)
            if len(run.index) == 0:
                return None
            points = past_boundary(run, points, gaps, slopes, self.overshoot)
        return points


def past_boundary(run: Run, points: Tensor, gaps: Tensor, slopes: Tensor, overshoot: float) -> Tensor:
    """Points (A, *) moved just beyond the nearest linearized boundary, with gaps (A, C) and slopes (A, C, *)."""
    low, high = run.threat.bounds
    # All of the way from the clean input is lengthened, not the last step alone: that one may be so
    # short that rounding in another batch would undo it.
    way = nearest_boundary(run.threat.norm, gaps, _free(points, slopes, low, high), 1e-6 * (high - low))
    return (run.x + (1 + overshoot) * (points - run.x + way)).clamp(low, high)


def _free(points: Tensor, slopes: Tensor, low: float, high: float) -> Tensor:
    """The slopes (A, C, *) without entries at a bound that would be pushed outward and lose most of the step."""
    place = points[:, None]
    pushed = ((place <= low) & (slopes < 0)) | ((place >= high) & (slopes > 0))
    inward = torch.where(pushed, 0.0, slopes)
    left = inward.flatten(2).square().sum(2) / slopes.flatten(2).square().sum(2).clamp_min(1e-30)  # (A, C)
    return torch.where((left < _LEFT).view(*left.shape, *[1] * (points.ndim - 1)), inward, slopes)


def nearest_boundary(norm: str, gaps: Tensor, slopes: Tensor, least: float) -> Tensor:
    """The smallest change (A, *) in the norm that closes one of the gaps (A, C), to first order.

    With slopes w (A, C, *) the distance to boundary c is |gap_c| / ||w_c|| in the dual norm; the
    nearest one is stepped to, over a distance of at least `least`.
    """
    flat = slopes.flatten(2)  # (A, C, D)
    size = flat.abs().sum(2) if norm == "linf" else torch.linalg.vector_norm(flat, dim=2)
    tiny = torch.finfo(size.dtype).tiny
    distance = torch.where(size > 0, gaps.abs() / size.clamp_min(tiny), torch.inf)
    best = distance.argmin(1)  # (A,)
    rows = torch.arange(len(gaps), device=gaps.device)
    way, length = flat[rows, best], distance[rows, best]
    way = way.sign() if norm == "linf" else way / size[rows, best].clamp_min(tiny)[:, None]
    # On the boundary itself the step would vanish; move by what float32 can resolve.
    length = length.clamp_min(least)
    step = torch.where(torch.isfinite(length)[:, None], length[:, None] * way, 0.0)
    return step.to(slopes.dtype).view_as(slopes[:, 0])
