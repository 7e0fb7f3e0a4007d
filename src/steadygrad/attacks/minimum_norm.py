"""DDN and FMN: smallest changes by gradient steps under a radius that adapts itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.losses import LossName
from steadygrad.attacks.run import Run
from steadygrad.precision import widened
from steadygrad.threat import Threat, per_sample
from steadygrad.values import Count, Fraction, Positive


def cosine(start: float, end: float, i: int, steps: int) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * i / max(1, steps))) / 2


def _unit(slope: Tensor) -> Tensor:
    flat = widened(slope.flatten(1))
    tiny = torch.finfo(flat.dtype).tiny
    # Squares of small slopes leave the range of float32, which is the widest type of some devices.
    flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(tiny)
    unit: Tensor = flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(tiny)
    return unit.to(slope.dtype).view_as(slope)


@ATTACKS.register(
    "ddn",
    summary="l2: direction by gradient, radius up where right and down where wrong",
    reference="Rony et al. 2019, arXiv 1811.09600",
    cost="steps x (1 forward + 1 backward)",
    norms=("l2",),
)
@dataclass(frozen=True)
class DDN(Attack):
    """Decoupled direction and norm: the nearest wrong point in l2.

    Args:
        gamma: share by which the radius changes in each step.
        radius: the first radius, as a share of the range of the inputs.
        loss: what is ascended; "soft" does not depend on the scale of the logits, "ce" is the paper's.

    >>> DDN(steps=50).gamma
    0.05
    """

    steps: Count = 100
    gamma: Fraction = 0.05
    radius: Positive = 1.0
    loss: LossName = "soft"
    minimum_norm: ClassVar[bool] = True

    def search(self, run: Run) -> Tensor | None:
        low, high = run.threat.bounds
        delta = torch.zeros_like(run.x)
        radius = run.x.new_full((len(run.x),), self.radius * (high - low))
        for i in range(self.steps):
            _, slope = run.gradient(run.x + delta)
            delta, slope, radius = run.drop_solved(delta, slope, radius)
            if len(run.index) == 0:
                return None
            delta = delta + cosine(1.0, 0.01, i, self.steps) * (high - low) * _unit(slope)
            radius = torch.where(run.wrong, radius * (1 - self.gamma), radius * (1 + self.gamma))
            delta = per_sample(radius, delta) * _unit(delta)
            delta = (run.x + delta).clamp(low, high) - run.x
        return run.x + delta


@ATTACKS.register(
    "fmn",
    summary="all norms: gradient steps projected onto a ball whose radius follows the boundary",
    reference="Pintor et al. 2021, arXiv 2102.12827",
    cost="steps x (1 forward + 1 backward)",
    norms=("linf", "l2", "l1", "l0"),
)
@dataclass(frozen=True)
class FMN(Attack):
    """Fast minimum-norm attack: the nearest wrong point in linf, l2, l1 or l0.

    Args:
        step: length of the first step in l2, as a share of the range of the inputs; falls to `last`.
        gamma: share by which the radius changes at first; falls to gamma_last.
        loss: what is ascended; "margin" is the paper's, None means that for l0 and "soft" otherwise.

    >>> FMN(steps=50).step
    1.0
    """

    steps: Count = 100
    step: Positive = 1.0
    last: Positive = 1e-5
    gamma: Fraction = 0.05
    gamma_last: Fraction = 1e-3
    loss: LossName | None = None
    minimum_norm: ClassVar[bool] = True

    def search(self, run: Run) -> Tensor | None:
        low, high = run.threat.bounds
        loss = self.loss or ("margin" if run.threat.norm == "l0" else "soft")
        delta = torch.zeros_like(run.x)
        radius = run.best.new_full((len(run.x),), torch.inf)
        for i in range(self.steps):
            _, slope = run.gradient(run.x + delta, loss)
            delta, slope, radius = run.drop_solved(delta, slope, radius)
            if len(run.index) == 0:
                return None
            gamma = cosine(self.gamma, self.gamma_last, i, self.steps)
            radius = _next_radius(run, run.threat, radius, gamma, delta, slope)
            moved = delta + cosine(self.step, self.last, i, self.steps) * (high - low) * _unit(slope)
            moved = (run.x + moved).clamp(low, high)
            within = torch.minimum(radius, run.threat.largest(run.x).to(radius.dtype))
            delta = run.threat.shrunk(within).constrain(run.x, moved) - run.x
        return run.x + delta


def _next_radius(run: Run, ball: Threat, radius: Tensor, gamma: float, delta: Tensor, slope: Tensor) -> Tensor:
    """The radii (A,) after a step: smaller where wrong, larger where right, guessed where nothing wrong is known."""
    nearest, gap = run.nearest, run.margin
    if ball.norm == "l0":
        smaller = torch.minimum(nearest - 1, (radius * (1 - gamma)).floor()).clamp_min(1)
        larger = torch.maximum(radius + 1, (radius * (1 + gamma)).floor())
    else:
        # The paper takes min(radius * (1 - gamma), nearest), which rests a step where the ball was cut short.
        smaller, larger = torch.minimum(radius, nearest) * (1 - gamma), radius * (1 + gamma)
    guess = (widened(ball.distance(delta)) + _to_boundary(ball, gap, slope)).to(radius.dtype)
    return torch.where(run.wrong, smaller, torch.where(torch.isinf(nearest), guess, larger))


def _to_boundary(ball: Threat, gap: Tensor, slope: Tensor) -> Tensor:
    """The linear estimate (A,) of the distance to the boundary, never zero: a tie is not yet wrong."""
    width = ball.bounds[1] - ball.bounds[0]
    flat, gap = widened(slope.flatten(1)), widened(gap.abs())
    dual = {"linf": 1, "l2": 2, "l1": math.inf, "l0": math.inf}[ball.norm]
    size: Tensor = torch.linalg.vector_norm(flat, ord=dual, dim=1).clamp_min(torch.finfo(flat.dtype).tiny)
    return (gap / (size * width)).ceil().clamp_min(1) if ball.norm == "l0" else (gap / size).clamp_min(1e-6 * width)
