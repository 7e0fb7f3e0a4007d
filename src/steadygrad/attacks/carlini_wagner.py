"""The attack of Carlini and Wagner for l2: a penalty for being right, its weight searched per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.run import Run
from steadygrad.threat import per_sample
from steadygrad.values import Count, NotNegative, Positive

_BETAS = (0.9, 0.999)  # of the averages of Adam, the paper's optimizer
# A descent that gains less than this share of its objective in a fifth of its steps has ended.
_PROGRESS, _LOOKS = 1e-2, 5
_GROWTH = 10.0
_LAST = 0.01  # length of the last step of a descent relative to the first


@ATTACKS.register(
    "carlini_wagner",
    summary="smallest l2 change by minimizing its square plus a constant times the missing margin",
    reference="Carlini and Wagner 2017, arXiv 1608.04644",
    cost="up to search_steps x steps x (1 forward + 1 backward), fewer for samples that stop gaining",
    norms=("l2",),
)
@dataclass(frozen=True)
class CarliniWagner(Attack):
    """Minimizes |d|^2 + c max(confidence - margin(x + d), 0) over changes d within the bounds.

    The constant c is searched for each sample by itself, and each search begins at the best point so
    far. Bounds are kept by projection: entries at a bound move, which they do not under the paper's
    change of variables, whose slope is zero there. Changes are counted in ranges of the inputs.

    Args:
        search_steps: values of the constant tried, each with `steps` gradient steps.
        lr: length of Adam's first step relative to the smallest change known so far, or at first to
            the one that a linear margin would need; it falls to a hundredth during each descent.
        confidence: smallest margin, in logits, of a point that counts.
        initial_constant: the first c; by default, from the first gradient, the one that would be
            right if the margin were linear, whatever the scale of the logits.

    >>> CarliniWagner(steps=50).search_steps
    5
    """

    search_steps: Count = 5
    steps: Count = 100
    lr: Positive = 4.0
    confidence: NotNegative = 0.0
    initial_constant: Positive | None = None
    minimum_norm: ClassVar[bool] = True

    def search(self, run: Run) -> Tensor | None:
        run.keep(run.nearest > 0)
        if len(run.index) == 0:
            return None
        with run.unjudged("margin") as inner:
            state = _State(inner, self.initial_constant)
            for _ in range(self.search_steps):
                inner.restart()
                inner.keep(state.open(inner))
                if len(inner.index) == 0:
                    break
                rows = inner.index
                state.adjust(rows, self._descend(inner, state))
        # Where nothing was found the distance is infinite, and the point is where the last descent ended.
        lost = per_sample(torch.isinf(state.size), state.points)
        run.record(torch.where(lost, _points(run, state.start), state.points), state.size)
        return None

    def _descend(self, run: Run, state: _State) -> Tensor:
        """One descent at the present constants; returns where it ended among points that count (A,)."""
        rows, width = run.index, run.threat.bounds[1] - run.threat.bounds[0]
        found = torch.zeros(len(state.size), dtype=torch.bool, device=run.x.device)
        change = state.start[rows]
        mean, square = torch.zeros_like(change), torch.zeros_like(change)
        lowest = before = change.new_full((len(rows),), torch.inf)
        for i in range(self.steps):
            value, slope = run.gradient(_points(run, change))
            counts = (value >= self.confidence) & (value > 0)
            counts = counts if run.target is not None else counts | run.unanswered
            state.remember(run, change, counts)
            missing = (self.confidence - value.to(change.dtype)).clamp_min(0)
            slope = width * slope.to(change.dtype)
            if i == 0:
                state.begin(run.index, missing, slope)
            constant = state.constant[run.index]
            lowest = torch.minimum(lowest, change.flatten(1).square().sum(1) + constant * missing)
            look = i > 0 and i % max(1, self.steps // _LOOKS) == 0
            if look or run.threat.eps is not None:
                going = state.open(run)
                going = going & (lowest < before * (1 - _PROGRESS)) if look else going
                state.leave(run, change)
                change, mean, square, slope, constant, lowest, before, counts = run.keep(
                    going, change, mean, square, slope, constant, lowest, before, counts
                )
                if len(run.index) == 0:
                    break
            if look:
                before = lowest
                # Only how the descent ends tells whether the constant was large enough.
                found[run.index] = False
            found[run.index] |= counts
            gradient = 2 * change - per_sample(torch.where(counts, 0.0, constant), slope) * slope
            mean = _BETAS[0] * mean + (1 - _BETAS[0]) * gradient
            square = _BETAS[1] * square + (1 - _BETAS[1]) * gradient**2
            scale = (square / (1 - _BETAS[1] ** (i + 1))).sqrt().clamp_min(1e-12)
            rate = self.lr * _LAST ** (i / self.steps) / (1 - _BETAS[0] ** (i + 1)) * state.unit[run.index]
            least, most = ((bound - run.x.to(change.dtype)) / width for bound in run.threat.bounds)
            change = torch.minimum(torch.maximum(change - per_sample(rate, mean) * mean / scale, least), most)
        state.leave(run, change)
        return found[rows]


class _State:
    """What is known about each sample between descents (N, ...); changes are in ranges of the inputs."""

    def __init__(self, run: Run, constant: float | None) -> None:
        dtype = torch.promote_types(run.x.dtype, torch.float32)
        self.points, self.start = run.x.clone(), torch.zeros_like(run.x, dtype=dtype)
        self.size = torch.full((len(run.x),), torch.inf, dtype=dtype, device=run.x.device)
        self.low, self.high = torch.zeros_like(self.size), torch.full_like(self.size, torch.inf)
        self.constant = torch.full_like(self.size, torch.nan if constant is None else constant)
        self.unit = torch.full_like(self.size, torch.nan)  # of a step, for each entry
        self.width = run.threat.bounds[1] - run.threat.bounds[0]
        self.root = run.threat.entries(run.x).clamp_min(1).to(dtype).sqrt()  # (N,)

    def open(self, run: Run) -> Tensor:
        """Which active samples (A,) are still to come nearer: those outside the radius, if there is one."""
        size = self.size[run.index]
        if run.threat.eps is None:
            return torch.ones_like(size, dtype=torch.bool)
        return size > run.threat.radius(run.x).to(size.dtype)

    def begin(self, rows: Tensor, missing: Tensor, slope: Tensor) -> None:
        """Where nothing is known yet, a margin f with slope g is taken as linear.

        It is crossed after a change of length f / |g|, and just so with the constant 2 f / |g|^2.
        """
        steepness = torch.linalg.vector_norm(slope.flatten(1), dim=1).clamp_min(1e-12)
        length = torch.minimum((missing / steepness).clamp_min(1e-6), self.root[rows])
        constant, unit = self.constant[rows], self.unit[rows]
        self.constant[rows] = torch.where(constant.isnan(), 2 * length / steepness, constant)
        self.unit[rows] = torch.where(unit.isnan(), length / self.root[rows], unit)

    def remember(self, run: Run, change: Tensor, counts: Tensor) -> None:
        """Keep the nearest point that counts, and begin the next descent there."""
        points = _points(run, change)
        size = run.threat.distance(points.to(self.size.dtype) - run.x.to(self.size.dtype))
        rows = run.index
        nearer = counts & (size < self.size[rows])
        self.size[rows] = torch.where(nearer, size, self.size[rows])
        for kept, found in ((self.points, points), (self.start, change)):
            kept[rows] = torch.where(per_sample(nearer, found), found, kept[rows])

    def leave(self, run: Run, change: Tensor) -> None:
        """Samples without any point go on from where their descent ended."""
        lost = torch.isinf(self.size[run.index])
        self.start[run.index] = torch.where(per_sample(lost, change), change, self.start[run.index])

    def adjust(self, rows: Tensor, found: Tensor) -> None:
        """Halve the interval of the constant; grow the constant, and the steps, while nothing is found."""
        constant = self.constant[rows]
        low = self.low[rows] = torch.where(found, self.low[rows], constant)
        high = self.high[rows] = torch.where(found, constant, self.high[rows])
        self.constant[rows] = torch.where(torch.isinf(high), _GROWTH * constant, (low + high) / 2)
        nearest = self.size[rows] / self.width / self.root[rows]
        self.unit[rows] = torch.where(torch.isinf(nearest), (_GROWTH * self.unit[rows]).clamp_max(1), nearest)


def _points(run: Run, change: Tensor) -> Tensor:
    """The inputs (A, *) under changes in ranges of the inputs, in the type of the inputs."""
    low, high = run.threat.bounds
    return (run.x + (high - low) * change).clamp(low, high).to(run.x.dtype)
