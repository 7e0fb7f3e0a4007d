"""Sparse swaps: a sparse change gives back its weakest entry while it stays wrong, and else exchanges it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.run import Run
from steadygrad.attacks.sigma_zero import SigmaZero
from steadygrad.values import Count, Share


@ATTACKS.register(
    "sparse_swaps",
    summary="l0: sigma-zero, whose change then gives back its weakest entries, or exchanges them for better ones",
    reference="a local search of this library, after sigma-zero: Cinà et al. 2025, arXiv 2402.01879",
    cost="steps x (1 forward + 1 backward)",
    norms=("l0",),
)
@dataclass(frozen=True)
class SparseSwaps(Attack):
    """The wrong point with the fewest changed entries: sigma-zero finds a set of entries, and swaps make it smaller.

    To first order, an entry that is moved to its bound is worth its slope of the margin times its way. A wrong point
    gives its least worthy entry back. A point that is right exchanges it for the best entry outside, and so keeps its
    size, which is one less than that of the nearest wrong point.

    Args:
        steps: half of them for sigma-zero.
        memory: how much of the mean of earlier slopes a step keeps, so that swaps do not undo each other.

    >>> SparseSwaps().memory
    0.9
    """

    steps: Count = 100
    memory: Share = 0.9
    minimum_norm: ClassVar[bool] = True

    def search(self, run: Run) -> Tensor | None:
        begun = max(1, self.steps // 2)
        if not run.again(SigmaZero(steps=begun).search(run)):
            return None
        points, slopes = run.found[run.index], None
        for _ in range(self.steps - begun):
            _, slope = run.gradient(points, "margin")
            slopes = slope if slopes is None else slope.lerp(slopes, self.memory)
            points, slopes = run.drop_solved(points, slopes)
            if len(run.index) == 0:
                return None
            points = _swapped(run, points, slopes)
        return points


def _swapped(run: Run, points: Tensor, slopes: Tensor) -> Tensor:
    """The next points (A, *): one entry less, another in its place, or one more where nothing wrong is known."""
    low, high = run.threat.bounds
    x, slope = run.x.flatten(1), slopes.flatten(1)
    inside = points.flatten(1) != x
    way = torch.where(slope > 0, high, low).to(x.dtype) - x
    worth = slope * way  # never negative
    least, weakest = torch.where(inside, worth, torch.inf).min(1, keepdim=True)
    most, best = torch.where(inside | (worth <= 0), -torch.inf, worth).max(1, keepdim=True)
    wrong, known = run.wrong[:, None], torch.isfinite(run.nearest)[:, None]
    less = wrong & (inside.sum(1, keepdim=True) > 1)
    swap = ~wrong & known & (most > least)
    more = ~wrong & ~known & torch.isfinite(most)
    change = torch.where(inside, way, 0.0)
    change.scatter_(1, weakest, torch.where(less | swap, 0.0, change.gather(1, weakest)))
    change.scatter_(1, best, torch.where(swap | more, way.gather(1, best), change.gather(1, best)))
    return (x + change).view_as(points)
