"""Single steps and plain iterations: random noise, FGSM and BIM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.losses import LossName
from steadygrad.attacks.run import Run
from steadygrad.values import Count, Positive


@ATTACKS.register(
    "random_noise",
    summary="uniform random points of the ball; the baseline any gradient attack must beat",
    reference="baseline",
    cost="draws forwards",
    order=0,
    norms=("linf", "l2", "l1", "l0"),
)
@dataclass(frozen=True)
class RandomNoise(Attack):
    """Tries `draws` uniform random points of the ball.

    >>> RandomNoise(draws=5).draws
    5
    """

    draws: Count = 10
    needs_gradient: ClassVar[bool] = False

    def search(self, run: Run) -> Tensor | None:
        points = run.threat.random(run.x, run.seeds)
        for draw in range(1, self.draws):
            if run.goal == "strongest":
                break
            run.look(points)
            run.drop_solved()
            if len(run.index) == 0:
                return None
            points = run.threat.random(run.x, run.seeds, draw)
        return points


@ATTACKS.register(
    "fgsm",
    summary="one step of full length along the steepest direction; with a target, TGSM",
    reference="Goodfellow, Shlens and Szegedy 2015, arXiv 1412.6572",
    cost="1 forward + 1 backward",
)
@dataclass(frozen=True)
class FGSM(Attack):
    """One step of length eps along the steepest ascent of the loss, from the clean input.

    >>> FGSM()
    FGSM(loss='soft')
    """

    loss: LossName = "soft"

    def search(self, run: Run) -> Tensor | None:
        _, slope = run.gradient(run.x)
        return run.step(run.x, slope, 1.0)


@ATTACKS.register(
    "bim",
    summary="FGSM in equal small steps, without random start; with a target, iterated TGSM",
    reference="Kurakin, Goodfellow and Bengio 2017, arXiv 1607.02533",
    cost="steps x (1 forward + 1 backward)",
)
@dataclass(frozen=True)
class BIM(Attack):
    """`steps` steps from the clean input, each of length `step` times eps (default 1 / steps).

    >>> BIM(steps=5).steps
    5
    """

    steps: Count = 10
    step: Positive | None = None
    loss: LossName = "soft"

    def search(self, run: Run) -> Tensor | None:
        length = self.step or 1 / self.steps
        points = run.x
        for _ in range(self.steps):
            _, slope = run.gradient(points)
            points, slope = run.drop_solved(points, slope)
            if len(run.index) == 0:
                return None
            points = run.step(points, slope, length)
        return points
