"""One attack on one batch: active samples, passes, and a verdict the attack has no say in.

An attack is a loop over a `Run`, which counts the passes of each sample, remembers the best wrong point it has
seen, lets solved samples leave, and at the end judges every remembered point in another batch composition.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from steadygrad.attacks.attack_result import AttackResult, judge
from steadygrad.attacks.expectation import network_of
from steadygrad.attacks.losses import attack_loss, margin, wrong_by
from steadygrad.attacks.targets import resolve_target
from steadygrad.calling import eagerly, samples_may_fail
from steadygrad.classifier import bounds_of, check_inputs, check_logits
from steadygrad.errors import UsageError
from steadygrad.quick import USUAL, taking, way_of
from steadygrad.threat import Threat, per_sample

Goal = Literal["first hit", "nearest", "strongest"]

_TIE = 1e-6


class Case(NamedTuple):
    """What an attack is made on: a model, inputs (N, *), labels, a threat, the classes to reach, and seeds."""

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    target: Tensor | str | None
    seeds: Tensor

    def at(self, rows: Tensor, radius: Tensor | None = None) -> Case:
        """The case of some rows (R,), with a radius (R,) for each if given."""
        target, threat = self.target, self.threat.rows(rows, self.x)
        threat = threat if radius is None else threat.at(radius)
        target = target[rows] if isinstance(target, Tensor) else target
        return Case(self.model, self.x[rows], self.y[rows], threat, target, self.seeds[rows.cpu()])


class Run:
    """The state of one attack on one batch; x, y, target, threat and seeds are those of the active samples.

    `index` (A,) maps active samples to their place in the batch. The goal says what the run keeps:

    * "first hit": the first allowed wrong point of each sample, which then leaves.
    * "nearest": the nearest wrong point; before there is one, the point that came closest to being wrong.
    * "strongest": nothing. No point is judged and nobody leaves; the attack returns its raw points.
    """

    def __init__(self, case: Case, loss: str = "margin", goal: Goal = "first hit") -> None:
        x = case.x
        self.model, self.loss, self.goal = case.model, loss, goal
        self._batch = case
        self._clean: Tensor | None = None
        self.rival: Tensor | None = None
        self._forget()
        self.found = x if goal == "strongest" else x.clone()
        self.best = x.new_full((len(x),), torch.inf, dtype=torch.promote_types(x.dtype, torch.float32))
        self.forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.zero_gradient = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        # On an accelerator a look at the success mask waits for the queue: look every few steps.
        self._poll_every = 1 if waits_for_nothing(x) else 5
        self._since_poll = 0
        self._checked = False
        self._cost = network_of(case.model)[1]
        self._highest = -self.best
        # The nearest wrong point lies where a narrower type may take one class for the other.
        self._way = USUAL if goal == "nearest" else way_of(case.model)

    @property
    def solved(self) -> Tensor:
        """Which samples of the batch (N,) have a wrong point on record."""
        return torch.isfinite(self.best)

    @property
    def quick(self) -> bool:
        """Whether the search runs the model in another way than the judge."""
        return self._way is not USUAL

    @property
    def settled(self) -> Tensor:
        """Which samples of the batch (N,) need no further search.

        For a fixed radius the solved ones; in a search for the smallest change those that have come within the
        radius, if there is one, and else the clean mistakes.
        """
        if self.goal != "nearest":
            return self.solved
        if self._batch.threat.eps is None:
            return self.best == 0
        return self.best <= self._batch.threat.radius(self._batch.x).to(self.best.dtype)

    @property
    def nearest(self) -> Tensor:
        """Distance (A,) of the nearest wrong point of each active sample, infinite where there is none."""
        return self.best[self.index]

    @property
    def classes(self) -> int:
        """The number of classes, known from the look at the clean inputs."""
        assert self.clean_logits is not None
        return self.clean_logits.shape[1]

    def look(self, points: Tensor) -> Tensor:
        """Logits (A, K) at points (A, *) without a gradient; wrong ones are remembered."""
        with torch.no_grad():
            logits = self._way.guarded(lambda: self._way.run(self.model, points))
        self.forwards[self.index] += self._cost
        self._remember(points, logits)
        return logits

    def gradient(self, points: Tensor, loss: str | None = None, *, anywhere: bool = False) -> tuple[Tensor, Tensor]:
        """Loss (A,) and its input gradient (A, *) at points (A, *): one forward, one backward.

        The gradient is zero where the threat's mask lets nothing change, unless it is asked for `anywhere`.
        """
        name = loss or self.loss

        def ascended(logits: Tensor) -> Tensor:
            if name == "rivals" and self.rival is None and self.target is None:
                self.aim(0)
            return attack_loss(name, logits, self.y, self.target, self.clean_logits, self.rival)[:, None]

        values, slopes = self.slopes(points, ascended, anywhere=anywhere)
        return values[:, 0], slopes[:, 0]

    def differences(self, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Differences (A, C) of the nearest rival logits to the label's, with their slopes (A, C, *).

        The C = min(count, K - 1) rivals are those with the largest logits; with a target it is the
        only rival, whose difference to the largest other logit is taken. One forward, C backwards.
        """

        def gaps(logits: Tensor) -> Tensor:
            logits = logits.float() if logits.dtype.itemsize < 4 else logits
            label = self.y if self.target is None else self.target
            rest = logits.detach().scatter(1, label[:, None], -torch.inf)
            nearest = rest.topk(min(count, rest.shape[1] - 1) if self.target is None else 1, dim=1).indices  # (A, C)
            gap = logits.gather(1, nearest) - logits.gather(1, label[:, None])
            return gap if self.target is None else -gap

        with eagerly():  # what is compiled goes back once for each forward
            return self.slopes(points, gaps)

    def slopes(
        self, points: Tensor, functions: Callable[[Tensor], Tensor], *, anywhere: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Functions (A, C) of the logits at points (A, *), with their slopes (A, C, *): one forward, C backwards."""
        points, logits, values, rows = self._way.guarded(lambda: self._passes(points.detach(), functions))
        self.forwards[self.index] += self._cost
        self.backwards[self.index] += len(rows) * self._cost
        self._remember(points, logits)
        slopes = torch.nan_to_num(torch.stack(rows, 1), nan=0.0, posinf=0.0, neginf=0.0)
        # A wrong point needs no direction, and some losses are constant beyond the boundary.
        flat = (slopes == 0).flatten(1).all(1)
        self.zero_gradient[self.index] |= flat if self.goal == "strongest" else flat & ~self.wrong
        mask = None if anywhere else self.threat.changeable(self.x)
        # Where the model gives no answer there is nothing to follow, and no NaN to step to.
        self.unanswered = ~torch.isfinite(values).all(1)
        values = torch.where(self.unanswered[:, None], 0.0, values)
        return values, slopes if mask is None else torch.where(mask[:, None], slopes, 0.0)

    def _passes(
        self, points: Tensor, functions: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """The points, their logits, functions (A, C) of these and the slopes (A, *) of each, without a graph."""
        with torch.enable_grad():
            leaf = points.requires_grad_()
            logits = self._way.run(self.model, leaf)
            if not self._checked:
                self._check(logits)
            values = functions(logits)
            if not values.requires_grad:
                raise UsageError(
                    "the model's output carries no gradient to its input (is there a detach, a no_grad or a "
                    "conversion to NumPy in its forward?): an attack that follows gradients would find nothing"
                )
            # Sums: a mean over the batch would underflow in half precision and tie samples together.
            sums = [column.sum() for column in values.unbind(1)]
            rows = [torch.autograd.grad(s, leaf, retain_graph=s is not sums[-1])[0] for s in sums]
        return leaf.detach(), logits.detach(), values.detach(), rows

    def _remember(self, points: Tensor, logits: Tensor) -> None:
        if self.goal == "strongest":
            return
        self.margin = margin(logits, self.y, self.target)
        self.wrong = wrong = wrong_by(logits, self.margin, self.target)
        before = self.nearest
        if self.goal == "nearest":
            highest = self._highest[self.index]
            gain = (self.margin - highest).to(highest.dtype) - _TIE * logits.abs().amax(1).to(highest.dtype)
            closer = (gain > 0) & torch.isinf(before)
            self._highest[self.index] = torch.where(closer, self.margin.to(highest.dtype), highest)
            self._keep_points(closer, points)
        if waits_for_nothing(points) and not bool(wrong.any()):
            return
        if self.goal == "nearest":
            size = self.threat.distance(points - self.x).to(before.dtype)
            # Points that tie but for rounding are one and the same: the first of them is kept.
            better = wrong & (size < before * (1 - _TIE))
        else:
            size = torch.zeros_like(before)
            better = wrong & torch.isinf(before) & self.threat.allows(self.x, points)
        self.best[self.index] = torch.where(better, size, before)
        self._keep_points(better, points)

    def _keep_points(self, which: Tensor, points: Tensor) -> None:
        self.found[self.index] = torch.where(per_sample(which, points), points, self.found[self.index])

    def record(self, points: Tensor, distance: Tensor) -> None:
        """Put points (A, *) on record, with their distances (A,): infinite for a point that is not wrong."""
        self.found[self.index], self.best[self.index] = points, distance.to(self.best.dtype)

    @contextlib.contextmanager
    def unjudged(self, loss: str) -> Iterator[Run]:
        """A run that keeps nothing, for attacks that weigh and `record` points themselves; its passes count here."""
        run = Run(self._active, loss, "strongest")
        run._way = self._way
        yield run
        self.charge(run)

    def charge(self, other: Run) -> None:
        """Count the passes of another run, over the samples that are active here, for this one."""
        self.forwards[self.index] += other.forwards
        self.backwards[self.index] += other.backwards
        self.zero_gradient[self.index] |= other.zero_gradient

    def step(self, points: Tensor, slope: Tensor, length: float, share: float = 0.05) -> Tensor:
        """Points (A, *) moved by `length` radii along the steepest direction, within the threat."""
        if self.threat.norm == "l1":
            # The few entries of an l1 step are wasted where they already lie at their bound.
            slope = inward(slope, points, self.threat)
        reach = per_sample(length * self.threat.radius(self.x), points)
        return self.threat.constrain(self.x, points + reach * self.threat.steepest(slope, share))

    def drop_solved(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Let settled samples leave; returns the caller's per-sample tensors (A, ...) without them."""
        if self.goal == "strongest" or (self.goal == "nearest" and self._batch.threat.eps is None):
            return tensors
        self._since_poll += 1
        if self._since_poll < self._poll_every:
            return tensors
        self._since_poll = 0
        return self.keep(~self.settled[self.index], *tensors)

    def keep(self, mask: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Keep the active samples under `mask` (A,) and the same rows of the caller's tensors."""
        if bool(mask.all()):
            return tensors
        self._activate(self.index[mask])
        self.wrong, self.margin = self.wrong[mask], self.margin[mask]
        self.rival = self.rival[mask] if self.rival is not None else None
        return tuple(t[mask] for t in tensors)

    def _activate(self, rows: Tensor | None) -> None:
        """Make some samples of the batch active; None stands for all of them."""
        self.index = torch.arange(len(self._batch.x), device=self._batch.x.device) if rows is None else rows
        self._active = self._batch if rows is None else self._batch.at(rows)
        _, self.x, self.y, self.threat, target, self.seeds = self._active
        self.target = target if isinstance(target, Tensor) else None
        self.clean_logits = self._clean if rows is None or self._clean is None else self._clean[rows]

    def _forget(self) -> None:
        self._activate(None)
        self.rival = None
        self.wrong = torch.zeros_like(self.y, dtype=torch.bool)  # of the points seen last (A,)
        self.margin = torch.zeros_like(self.y, dtype=torch.float32)  # likewise, positive where wrong
        self.unanswered = self.wrong  # of the points at which slopes were taken last: no finite logits there

    def restart(self) -> None:
        """Make all samples of the batch that are not settled active again, from their clean inputs."""
        self._forget()
        if self.goal != "strongest":
            self.keep(~self.settled)

    def again(self, last: Tensor | None) -> bool:
        """Look at the last points (A, *) and restart; False if there is nobody, or no reason, to go on for."""
        if self.goal == "strongest":
            return False
        if last is not None:
            self.look(last)
        self.restart()
        return len(self.index) > 0

    def aim(self, rank: int) -> Tensor:
        """Make the wrong class that was `rank`-th most likely when clean the rival (A,) of each active sample."""
        assert self.clean_logits is not None
        order = self.clean_logits.scatter(1, self.y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
        self.rival = order[:, rank % (self.classes - 1)]
        return self.rival

    def begin(self) -> None:
        """Look at the clean inputs: check the model's output, settle the target, drop clean mistakes."""
        with torch.no_grad():
            logits = self.model(self.x)
        self._check(logits)
        self.forwards += self._cost
        self._clean = logits
        self._batch = self._batch._replace(target=resolve_target(self._batch.target, logits, self.y, self.seeds))
        self._activate(None)
        self._remember(self.x, logits)
        self.restart()

    def _check(self, logits: Tensor) -> None:
        check_logits(logits, len(self.x))
        check_inputs(self.x, self.y, self.threat.bounds, logits.shape[1])
        self._checked = True

    def result(self) -> AttackResult:
        """Judge what was remembered and close the run."""
        _, x, y, threat, target, _ = self._batch
        assert not isinstance(target, str)
        success, passes = judge(self.model, x, self.found, y, threat, target, self.solved)
        self.forwards += passes
        distance = threat.distance(self.found - x)
        return AttackResult(
            inputs=torch.where(per_sample(success, x), self.found, x),
            success=success,
            distance=torch.where(success, distance, torch.inf),
            forwards=self.forwards,
            backwards=self.backwards,
            zero_gradient=self.zero_gradient,
            found_by=torch.where(success & (distance > 0), 0, -1),
        )


def attacked(search: Callable[[Case], Run], case: Case) -> AttackResult:
    """What a search finds, as judged; samples that only a quick search takes for wrong are searched again as usual.

    So none of them stands because of the type in which it was searched.
    """
    run = search(case)
    with samples_may_fail():
        found = run.result()
    missed = (run.solved & ~found.success).nonzero().squeeze(1) if run.quick else run.index[:0]
    if len(missed):
        with taking(()):
            found.take(missed, attacked(search, case.at(missed)))
    return found


def waits_for_nothing(values: Tensor) -> bool:
    """Whether a look at values is free: on an accelerator it waits for all that was asked of it before."""
    return values.device.type == "cpu"


def inward(slope: Tensor, points: Tensor, threat: Threat) -> Tensor:
    """The slope (A, *) without the entries that already lie at the bound to which it leads."""
    low, high = threat.bounds
    return torch.where(((slope > 0) & (points >= high)) | ((slope < 0) & (points <= low)), 0.0, slope)


def check_threat(model: nn.Module, threat: Threat) -> None:
    """Refuse a threat whose bounds are not those of the classifier."""
    bounds = bounds_of(model)
    if bounds is not None and bounds != threat.bounds:
        given = f"the threat has bounds {threat.bounds} but the classifier {bounds}"
        raise UsageError(f"{given}: give bounds={bounds} to the threat")
