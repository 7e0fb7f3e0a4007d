"""One perturbation for all inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from steadygrad.arguments import Classes, Inputs, Labels, public
from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.run import Run
from steadygrad.attacks.targets import resolve_target
from steadygrad.classifier import frozen
from steadygrad.errors import UsageError
from steadygrad.threat import Threat, per_sample
from steadygrad.values import Count, Positive

# Cross-entropies: of a label that is far from predicted, and of one with half of the probability.
_CERTAIN, _LIKELY = 2.0, 0.7


@ATTACKS.register(
    "universal",
    summary="one perturbation that fools as many inputs of a set as possible",
    reference="Moosavi-Dezfooli et al. 2017, arXiv 1610.08401; by ascent as Shafahi et al. 2018, 1811.11304",
    cost="steps x (1 forward + 1 backward)",
    norms=("linf", "l2"),
)
@dataclass(frozen=True)
class Universal(Attack):
    """Ascends the mean of min(loss, clip) over the inputs, with respect to one perturbation for all.

    `fit` finds it on a data set, in batches. As an attack it is found on the given batch, clean mistakes apart,
    and judged on each sample of it: what happens to a sample then depends on the others, as for no other
    attack. A radius per sample scales the one perturbation for each.

    Args:
        step: length of the first of `steps` steps in radii; the others fall linearly to zero.
        clip: the loss from which on a sample counts no more, so that a few very wrong ones do not
            outweigh the rest. By default the end of the margin, 0; for "ce" 2, with a target -0.7.
        batch_size: samples per step in `fit`.

    >>> Universal(steps=20).per_sample
    False
    """

    steps: Count = 50
    step: Positive = 0.25
    loss: Literal["soft", "margin", "dlr", "ce"] = "margin"
    clip: float | None = None
    batch_size: Count = 256
    per_sample: ClassVar[bool] = False

    @public
    def fit(self, model: nn.Module, x: Inputs, y: Labels, threat: Threat, *, target: Classes | None = None) -> Tensor:
        """The perturbation (1, *) within the threat for inputs x (N, *) with labels y (N,).

        Add it to any input and clip to the bounds: `threat.constrain(x, x + found)`.

        Args:
            target: labels (N,) to reach; None means any wrong label.

        Raises:
            UsageError: as for an attack; no radius, or one per sample.
        """
        if threat.eps is None or (isinstance(threat.eps, Tensor) and threat.eps.ndim):
            raise UsageError(f"one perturbation for all needs one radius for all, got eps={threat.eps}")
        case = self._case(model, x, y, threat, target, None)
        way = torch.zeros_like(case.x[:1])
        rows, size = torch.arange(len(x), device=x.device), self.batch_size
        batches = [rows[start : start + size] for start in range(0, len(x), size)]
        with frozen(model, case.seeds):
            if target is not None:
                with torch.no_grad():
                    case = case._replace(target=resolve_target(target, case.model(case.x[:1]), case.y, case.seeds))
            for i in range(self.steps):
                run = Run(case.at(batches[i % len(batches)]), self.loss, "strongest")
                way = self._step(run, way, i)
        return per_sample(threat.radius(way), x) * way

    def search(self, run: Run) -> Tensor | None:
        way = torch.zeros_like(run.x[:1])
        with run.unjudged(self.loss) as inner:
            for i in range(self.steps):
                way = self._step(inner, way, i)
        return _moved(run, way)

    def _step(self, run: Run, way: Tensor, i: int) -> Tensor:
        """One step of the perturbation (1, *), which is kept in a ball of radius 1."""
        values, slope = run.gradient(_moved(run, way))
        counts = per_sample(values <= self._most(run), slope)
        mean = torch.where(counts, slope, 0.0).to(torch.promote_types(slope.dtype, torch.float32)).mean(0, keepdim=True)
        length = self.step * (1 - i / self.steps)
        # The slopes know the mask; the one perturbation for all inputs has none of its own.
        ball = Threat(run.threat.norm, 1.0, run.threat.bounds)
        return ball.project(way + length * ball.steepest(mean).to(way.dtype))

    def _most(self, run: Run) -> float:
        if self.clip is not None or self.loss != "ce":
            return self.clip or 0.0
        return _CERTAIN if run.target is None else -_LIKELY


def _moved(run: Run, way: Tensor) -> Tensor:
    """The inputs (A, *) under the perturbation, scaled to the radius of each."""
    return run.threat.constrain(run.x, run.x + per_sample(run.threat.radius(run.x), run.x) * way)
