"""FAB-T: the nearest wrong input, by steps onto the linearized boundary that stay near the clean one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.losses import attack_loss
from steadygrad.attacks.run import Run, waits_for_nothing
from steadygrad.threat import Threat, per_sample
from steadygrad.values import Count, Fraction, Limit, Positive

_LARGEST_PULL = 0.1  # of the clean input in a step
_FIRST_CHECK = 8
# Newton's method on a concave piecewise linear function ends by itself, mostly within ten steps.
_NEWTON = 60
_REFINEMENTS = 3
_BEYOND = 1e-4  # of the margin between the clean input and the wrong one
_FromOne = Annotated[float, Limit("at least 1", lambda value: value >= 1)]


@ATTACKS.register(
    "fab",
    summary="nearest wrong input: projections onto the linearized boundary to each of the likeliest classes",
    reference="Croce and Hein 2020, arXiv 1907.02044",
    cost="restarts x targets x (steps x (1 forward + 1 backward) + 1 forward) + 4 forwards",
)
@dataclass(frozen=True)
class FAB(Attack):
    """Fast adaptive boundary attack, `steps` for one class after the other; a sample leaves once it is within eps.

    Args:
        targets: how many of the classes that were most likely when clean are tried, at most all wrong ones.
        restarts: later ones begin at random points at half the smallest distance found so far.
        eta: overshoot over the boundary.
        beta: share of the change that is kept when a step back is taken from a wrong point.
        optimism: a sample gives a class up at step 8, 16, 32, ... if it would stay outside the radius, or without
            one farther away than the classes before, even with this many times the gain of the last
            doubling of the steps in each doubling to come; None never gives up.

    A wrong point gives the next linearization itself, where the paper evaluates the model a second time
    after the step back: one forward and one backward in every step.

    >>> FAB(steps=20).targets
    9
    """

    steps: Count = 100
    targets: Count = 9
    restarts: Count = 1
    eta: _FromOne = 1.05
    beta: Fraction = 0.9
    optimism: Positive | None = 2.0
    minimum_norm: ClassVar[bool] = True

    def search(self, run: Run) -> Tensor | None:
        classes = 1 if run.target is not None else min(self.targets, run.classes - 1)
        for restart in range(self.restarts):
            for rank in range(classes):
                run.restart()
                if len(run.index) == 0:
                    return None
                run.aim(rank)
                self._approach(run, restart, restart * classes + rank)
        run.restart()
        pull_back(run)
        return None

    def _approach(self, run: Run, restart: int, draw: int) -> None:
        """Walk along one boundary from the clean input, or from a random point in later restarts."""
        points = run.x
        if restart:
            half = torch.minimum(run.nearest.to(run.x.dtype), run.threat.largest(run.x)) / 2
            points = run.threat.at(half).random(run.x, run.seeds, draw)
        bar = run.nearest if run.threat.eps is None else run.threat.radius(run.x).to(run.nearest.dtype)
        nearest = torch.full_like(run.nearest, torch.inf)
        before = nearest
        for i in range(self.steps):
            value, slope = run.gradient(points, "rivals")
            size = run.threat.distance(points - run.x).to(nearest.dtype)
            nearest = torch.where(run.wrong, torch.minimum(nearest, size), nearest)
            points, value, slope, nearest, before, bar = run.drop_solved(points, value, slope, nearest, before, bar)
            if i >= _FIRST_CHECK and i.bit_count() == 1 and self.optimism is not None:
                hope = self.optimism * math.log2(self.steps / i) * (before - nearest)
                hopeless = nearest - bar > hope
                points, value, slope, nearest, bar = run.keep(~hopeless, points, value, slope, nearest, bar)
                before = nearest
            elif 2 * i == _FIRST_CHECK:
                before = nearest
            if len(run.index) == 0:
                return
            points = self._step(run.threat, run.x, points, value, slope, run.wrong)
        run.look(points)

    def _step(self, ball: Threat, x: Tensor, points: Tensor, value: Tensor, slope: Tensor, wrong: Tensor) -> Tensor:
        """From points (A, *) past the boundary as seen there, drawn toward the clean input's own projection."""
        wide = slope if slope.dtype.itemsize >= 4 else slope.float()
        back = x + self.beta * (points - x)
        base = torch.where(per_sample(wrong, x), back, points)

        def shift(origin: Tensor) -> Tensor:
            gap = value.to(wide.dtype) + (wide * (origin - points)).flatten(1).sum(1)
            return onto_hyperplane(ball, origin, wide, -gap)

        from_base, from_clean = shift(base), shift(x)
        near, far = ball.distance(from_base), ball.distance(from_clean)
        tiny = torch.finfo(near.dtype).tiny
        pull = per_sample((near / (near + far).clamp_min(tiny)).clamp_max(_LARGEST_PULL), x)
        moved = (1 - pull) * (base + self.eta * from_base) + pull * (x + self.eta * from_clean)
        return ball.within_mask(x, moved.clamp(*ball.bounds).to(x.dtype))


def pull_back(run: Run) -> None:
    """Move the nearest wrong points back along the line to the clean inputs, to just beyond the boundary."""
    run.keep(torch.isfinite(run.nearest) & (run.nearest > 0))
    if len(run.index) == 0:
        return
    assert run.clean_logits is not None

    def margin(logits: Tensor) -> Tensor:
        assert run.clean_logits is not None
        found, clean = (attack_loss("margin", z, run.y, run.target, None) for z in (logits, run.clean_logits))
        return torch.where(torch.isfinite(found), found, -clean)  # no answer counts as wrong

    right = margin(run.clean_logits)
    start, end = torch.zeros_like(right), torch.ones_like(right)
    delta = run.found[run.index] - run.x
    wrong = margin(run.look(run.x + delta))
    # On the boundary itself rounding decides, and decides otherwise in another batch.
    aim = _BEYOND * (wrong - right)
    for _ in range(_REFINEMENTS):
        share = start + (end - start) * ((right - aim) / (right - wrong).clamp_max(-1e-12)).clamp(0, 1)
        points = run.x + per_sample(share.to(delta.dtype), delta) * delta
        value = margin(run.look(points))
        beyond = run.wrong
        end, wrong = torch.where(beyond, share, end), torch.where(beyond, value, wrong)
        start, right = torch.where(beyond, start, share), torch.where(beyond, right, value)
        end, wrong, start, right, aim, delta = run.drop_solved(end, wrong, start, right, aim, delta)
        if len(run.index) == 0:
            return


def onto_hyperplane(threat: Threat, x: Tensor, slope: Tensor, gain: Tensor) -> Tensor:
    """The smallest changes d (N, *) in the norm with slope . d = gain that keep x + d within the bounds.

    Every entry moves with or against the sign of its slope by what room it has: in linf and l2 by
    min(room, t) and min(room, t |slope|) with one t, in l1 the entries of largest slope by all of it, one after
    the other. Where the bounds leave no such change, every entry goes to its bound.

    >>> onto_hyperplane(Threat("l2"), torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), torch.tensor([2.5]))
    tensor([[0.3000, 0.4000]])
    """
    low, high = threat.bounds
    way = (slope * per_sample(gain.sign(), x)).flatten(1)
    flat = x.flatten(1).to(way.dtype)
    room = torch.where(way > 0, high - flat, flat - low).clamp_min(0)
    size = way.abs()
    # The largest slope becomes 1: its squares stay within the range of the type.
    scale = size.amax(1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
    size, need = size / scale, (gain.abs().to(way.dtype) / scale.squeeze(1))
    if threat.norm == "l1":
        moved = _greedy(size, room, need)
    elif threat.norm == "linf":
        moved = torch.minimum(room, _level(size, room, need)[:, None])
    else:
        moved = torch.minimum(room, size * _level(size * size, room / size, need)[:, None])
    return (way.sign() * moved).view_as(x)


def _level(weight: Tensor, bends: Tensor, need: Tensor) -> Tensor:
    """The t (N,) at which sum weight min(bends, t) reaches what is needed; the largest bend where it never does.

    The sum is concave in t, so Newton's method from 0 rises to the answer and never passes it.
    """
    bends = torch.where(weight > 0, bends, 0.0)
    t = torch.zeros_like(need)
    for _ in range(_NEWTON):
        open_ = bends > t[:, None]
        rate = (weight * open_).sum(1)
        rest = need - (weight * torch.minimum(bends, t[:, None])).sum(1)
        going = (rate > 0) & (rest > 4 * torch.finfo(need.dtype).eps * need)
        if waits_for_nothing(t) and not bool(going.any()):
            break
        t = torch.where(going, t + rest / torch.where(rate > 0, rate, 1.0), t)
    return torch.minimum(t, bends.amax(1))


def _greedy(size: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """How far each entry moves (N, D) when those of largest slope go first."""
    order = size.argsort(dim=1, descending=True, stable=True)
    ordered, rooms = size.gather(1, order), room.gather(1, order)
    gains = ordered * rooms
    left = (need[:, None] - (gains.cumsum(1) - gains)).clamp_min(0)
    moved = torch.minimum(rooms, left / ordered.clamp_min(torch.finfo(size.dtype).tiny))
    moved = torch.where(ordered > 0, moved, 0.0)
    return torch.zeros_like(size).scatter(1, order, moved)
