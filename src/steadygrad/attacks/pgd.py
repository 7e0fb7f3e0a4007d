"""Projected gradient descent: the default attack for a fixed radius."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.losses import LossName
from steadygrad.attacks.run import Run
from steadygrad.values import Count, Positive

_WIDEST = 0.1  # share of the entries moved by the first step in l1


@ATTACKS.register(
    "pgd",
    summary="steps of falling length along the steepest direction, random starts, solved samples leave",
    reference="Madry et al. 2018, arXiv 1706.06083",
    cost="restarts x steps x (1 forward + 1 backward), fewer for samples that fall early",
)
@dataclass(frozen=True)
class PGD(Attack):
    """Ascends the loss within the ball from `restarts` random points.

    Args:
        step: length of the first of `steps` steps in radii; the others fall linearly to zero, so that early
            steps cross the ball and late ones settle. Default max(0.25, 5 / (steps + 1)), for l1 1.
        restarts: a later restart runs only the samples that resisted the earlier ones.
        random_start: begin at a random point of the ball rather than at the clean input.
        loss: "soft", "margin" and "dlr" do not depend on the scale of the logits; nor does "rivals", the
            margin to a single wrong class, the next most likely one for each restart, which finds in a
            few restarts what "margin" misses in many (Gowal et al. 2019, arXiv 1910.09338); "ce" is
            the paper's; "kl" is the divergence from the clean prediction.

    In l1 the share of entries that a step moves falls to a single one: wide steps find where to go,
    narrow ones make the change as sparse as the ball wants it (Croce and Hein 2021, arXiv 2103.01208).

    >>> PGD(steps=10, restarts=2).steps
    10
    """

    steps: Count = 40
    step: Positive | None = None
    restarts: Count = 1
    random_start: bool = True
    loss: LossName = "soft"

    def search(self, run: Run) -> Tensor | None:
        points: Tensor | None = None
        for restart in range(self.restarts):
            if restart and not run.again(points):
                break
            if self.loss == "rivals" and run.target is None:
                run.aim(restart)
            points = self._climb(run, restart)
        return points

    def _climb(self, run: Run, restart: int) -> Tensor | None:
        first = self.step or (1.0 if run.threat.norm == "l1" else max(0.25, 5 / (self.steps + 1)))
        points = run.threat.random(run.x, run.seeds, restart) if self.random_start else run.x
        for i in range(self.steps):
            _, slope = run.gradient(points)
            points, slope = run.drop_solved(points, slope)
            if len(run.index) == 0:
                return None
            share = _WIDEST * (1 / (_WIDEST * points[0].numel())) ** (i / max(1, self.steps - 1))
            points = run.step(points, slope, first * (1 - i / self.steps), share)
        return points
