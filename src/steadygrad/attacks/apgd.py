"""Auto-PGD: projected gradient ascent whose step length follows from its own progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.run import Run, inward
from steadygrad.threat import Threat, per_sample
from steadygrad.values import Count

_MOMENTUM = 0.75
_RISES = 0.75  # share of rising steps below which the step is too long
# l1 walks from larger balls into the small one: (radii, share of the steps).
_L1_STAGES = ((3.0, 0.3), (2.0, 0.3))
_L1_SHARE = 0.2  # of the entries, moved by the first step in l1
_L1_SPARSER = 1.5


class _State(NamedTuple):
    """What is kept of each active sample."""

    points: Tensor  # (A, *), as the four below
    previous: Tensor
    slope: Tensor
    best: Tensor
    best_slope: Tensor
    value: Tensor  # of the loss at the points seen last (A,)
    best_value: Tensor
    length: Tensor  # of the step, in radii (A,)
    mark: Tensor  # best loss, in l1 number of changed entries, at the last checkpoint (A,)
    rises: Tensor  # steps since then at which the loss rose (A,)
    halved: Tensor  # whether the length was halved there (A,)
    moved: Tensor  # entries that a step in l1 moves (A,)


@ATTACKS.register(
    "apgd",
    summary="PGD without a step to tune: momentum, halved steps where progress stalls, back to the best point",
    reference="Croce and Hein 2020, arXiv 2003.01690; l1: Croce and Hein 2021, arXiv 2103.01208",
    cost="restarts (x targets) x (steps x (1 forward + 1 backward) + 1 forward), fewer for samples that fall early",
)
@dataclass(frozen=True)
class APGD(Attack):
    """Ascends the loss with steps that are halved where they no longer gain.

    Args:
        restarts: random starts; a later one runs only the samples that resisted the earlier ones.
        loss: "ce", "dlr" and "margin" lead to any wrong class; "dlr-targets" leads in turn to each of
            the classes that were most likely when clean. A target given in the call is followed by all.
        targets: how many classes "dlr-targets" tries, at most all wrong ones.

    In l1 the steps are sparse: they move about as many entries as the best change found so far has,
    first in balls of three and of two radii.

    >>> APGD(steps=50, loss="dlr-targets").targets
    9
    """

    steps: Count = 100
    restarts: Count = 1
    loss: Literal["ce", "dlr", "margin", "dlr-targets"] = "ce"
    targets: Count = 9

    def search(self, run: Run) -> Tensor | None:
        best, last = None, None
        for attempt, rank in enumerate(self._ranks(run)):
            if attempt and not run.again(last):
                break
            if rank is not None:
                run.aim(rank)
            best, last = self._walk_l1(run, attempt) if run.threat.norm == "l1" else self._walk(run, attempt)
        return best if run.goal == "strongest" else last

    def _ranks(self, run: Run) -> list[int | None]:
        """For each attempt the rank of the class to aim at, or None."""
        if self.loss != "dlr-targets" or run.target is not None:
            return [None] * self.restarts
        return [*range(min(self.targets, run.classes - 1))] * self.restarts

    def _walk(self, run: Run, attempt: int) -> tuple[Tensor | None, Tensor | None]:
        """The best points and the last, unseen ones (A, *); None where nobody is left."""
        state = _begin(run.threat.random(run.x, run.seeds, attempt), 2.0)
        checks = _checkpoints(self.steps)
        for i in range(self.steps):
            state = self._see(run, state)
            if len(run.index) == 0:
                return None, None
            if i in checks:
                state = _halve(state, checks[i])
            ahead = _ahead(run.threat, run.x, state, run.threat.steepest(state.slope))
            if i:
                ahead = state.points + _MOMENTUM * (ahead - state.points)
                ahead = ahead + (1 - _MOMENTUM) * (state.points - state.previous)
                ahead = run.threat.constrain(run.x, ahead)
            state = state._replace(previous=state.points, points=ahead)
        return state.best, state.points

    def _walk_l1(self, run: Run, attempt: int) -> tuple[Tensor | None, Tensor | None]:
        stages = [(factor, int(share * self.steps)) for factor, share in _L1_STAGES]
        stages = [stage for stage in stages if stage[1]]
        stages.append((1.0, self.steps - sum(count for _, count in stages)))
        best, last = None, None
        for factor, steps in stages:
            threat = run.threat.at(factor * run.threat.radius(run.x))
            start = threat.random(run.x, run.seeds, attempt) if best is None else threat.constrain(run.x, best)
            state = _begin(start, 1.0)
            changed = run.threat.entries(run.x).to(state.mark) if best is None else _changed(start - run.x)
            moved = changed * _L1_SHARE if best is None else changed / _L1_SPARSER
            state = state._replace(mark=changed, moved=moved)
            for i in range(steps):
                state = self._see(run, state)
                if len(run.index) == 0:
                    return None, None
                if i and i % max(int(0.04 * steps), 1) == 0:
                    state = _sparsen(run, state)
                threat = run.threat.at(factor * run.threat.radius(run.x))
                way = _sparse(inward(state.slope, state.points, run.threat), state.moved)
                state = state._replace(points=_ahead(threat, run.x, state, way))
            best, last = state.best, state.points
        return best, last

    def _see(self, run: Run, state: _State) -> _State:
        """The state with loss and slope at its points, without the samples that are solved."""
        value, slope = run.gradient(state.points, self.loss)
        better = value > state.best_value
        place = per_sample(better, slope)
        state = state._replace(
            slope=slope,
            best=torch.where(place, state.points, state.best),
            best_slope=torch.where(place, slope, state.best_slope),
            rises=state.rises + (value > state.value),
            value=value,
            best_value=torch.where(better, value, state.best_value),
        )
        return _State(*run.drop_solved(*state))


def _begin(points: Tensor, length: float) -> _State:
    wide = torch.promote_types(points.dtype, torch.float32)
    lowest = torch.full((len(points),), -torch.inf, dtype=wide, device=points.device)
    none = torch.zeros_like(lowest)
    return _State(
        points=points,
        previous=points,
        slope=points,
        best=points,
        best_slope=points,
        value=-lowest,
        best_value=lowest,
        length=torch.full_like(lowest, length),
        mark=lowest,
        rises=none,
        halved=none > 0,
        moved=none,
    )


def _ahead(threat: Threat, x: Tensor, state: _State, way: Tensor) -> Tensor:
    reach = per_sample(state.length.to(x.dtype) * threat.radius(x), x)
    return threat.constrain(x, state.points + reach * way)


def _checkpoints(steps: int) -> dict[int, int]:
    """The steps at which progress is looked at, each with the steps since the one before."""
    interval, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    checks, at = {}, 0
    while at + interval < steps:
        at += interval
        checks[at] = interval
        interval = max(interval - shrink, least)
    return checks


def _halve(state: _State, interval: int) -> _State:
    """Halve the step and go back to the best point where too few steps rose or nothing was gained."""
    stalled = state.rises <= _RISES * interval
    idle = ~state.halved & (state.best_value <= state.mark)
    halve = stalled | idle
    place = per_sample(halve, state.points)
    return state._replace(
        points=torch.where(place, state.best, state.points),
        slope=torch.where(place, state.best_slope, state.slope),
        length=torch.where(halve, state.length / 2, state.length),
        mark=state.best_value,
        rises=torch.zeros_like(state.rises),
        halved=halve,
    )


def _sparsen(run: Run, state: _State) -> _State:
    """Let the number of moved entries follow the best change; full steps again where it got sparser."""
    changed = _changed(state.best - run.x)
    sparser = changed < 0.95 * state.mark
    place = per_sample(sparser, state.points)
    return state._replace(
        points=torch.where(place, state.best, state.points),
        slope=torch.where(place, state.best_slope, state.slope),
        length=torch.where(sparser, 1.0, (state.length / 1.5).clamp_min(0.1)),
        mark=changed,
        moved=changed / _L1_SPARSER,
    )


def _sparse(slope: Tensor, count: Tensor) -> Tensor:
    """Signs of the `count` (A,) entries of largest slope, with absolute sum 1 (A, *)."""
    size = slope.flatten(1).abs()
    last = count.long().clamp(1, size.shape[1]) - 1
    bar = size.sort(dim=1, descending=True).values.gather(1, last[:, None])
    way = torch.where(size >= bar, slope.flatten(1).sign(), 0.0)
    return (way / way.abs().sum(1, keepdim=True).clamp_min(1)).view_as(slope)


def _changed(delta: Tensor) -> Tensor:
    return (delta.flatten(1).abs() > 1e-7).sum(1).to(torch.promote_types(delta.dtype, torch.float32))
