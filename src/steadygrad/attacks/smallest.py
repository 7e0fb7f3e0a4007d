"""Smallest: what the best searches of a norm find together, within a budget of passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.fab import FAB
from steadygrad.attacks.minimum_norm import FMN
from steadygrad.attacks.run import Run
from steadygrad.attacks.sparse_swaps import SparseSwaps
from steadygrad.values import Count

_MANY = 200  # steps from which on FAB settles for more classes, as it does in l2 from the first on


@ATTACKS.register(
    "smallest",
    summary="the nearest of what FMN and then FAB to three or five classes find; sparse swaps for l0",
    reference="Pintor et al. 2021, arXiv 2102.12827; Croce and Hein 2020, 1907.02044; Cinà et al. 2025, 2402.01879",
    cost="about steps x (1 forward + 1 backward)",
    norms=("linf", "l2", "l1", "l0"),
)
@dataclass(frozen=True)
class Smallest(Attack):
    """The smallest change that is known, in any norm: the searches follow each other, and the nearest point is kept.

    FMN leads to the class that is nearest on the way; FAB then walks to each of the three that were likeliest when
    clean, or five in l2 or with many steps, and gives up those that lead no nearer than what FMN has found.

    Args:
        steps: gradient steps per sample, about, of all searches together.

    >>> Smallest().steps
    100
    """

    steps: Count = 100
    minimum_norm: ClassVar[bool] = True

    def search(self, run: Run) -> Tensor | None:
        if run.threat.norm == "l0":
            return SparseSwaps(self.steps).search(run)
        # Measured on training images of MNIST: few steps of FAB to more classes lead nowhere in linf and l1.
        classes, first, each = (5, 4, 5) if run.threat.norm == "l2" or self.steps >= _MANY else (3, 5, 2.5)
        if run.again(FMN(steps=max(1, int(self.steps / first))).search(run)):
            FAB(steps=max(1, int(self.steps / each)), targets=classes).search(run)
        return None
