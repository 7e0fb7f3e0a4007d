"""One attack on one batch: active samples, passes, and a verdict the attack has no say in.

An attack is written as a loop over `Run`: it asks for gradients of its loss at points of its
choice. The run counts the passes of each sample, remembers the best wrong point it has seen, lets
solved samples leave the batch, and at the end judges every remembered point again in another batch
composition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad.attacks.expectation import draws_of
from steadygrad.attacks.losses import attack_loss, exceeds_rounding, is_adversarial, margin
from steadygrad.attacks.targets import resolve_target
from steadygrad.classifier import bounds_of, check_inputs, check_logits
from steadygrad.errors import UsageError
from steadygrad.threat import Threat

__all__ = ["AttackResult", "Run", "check_threat", "judge"]

_TIE = 1e-6


@dataclass(frozen=True)
class AttackResult:
    """What an attack found, as judged by the engine.

    Attributes:
        inputs: the adversarial inputs (N, *); the clean ones where nothing was found.
        success: (N,) bool; a clean mistake is a success at distance 0.
        distance: (N,) in the threat's norm; infinite where nothing was found.
        forwards, backwards: (N,) passes spent on each sample, the judge's included.
        zero_gradient: (N,) bool; the loss had no gradient at all at some point of the search.
        found_by: (N,) the number, in `attack.members()`, of the member that found the input; -1 where
            nothing was found and for clean mistakes.
    """

    inputs: Tensor
    success: Tensor
    distance: Tensor
    forwards: Tensor
    backwards: Tensor
    zero_gradient: Tensor
    found_by: Tensor

    @classmethod
    def of_nothing(cls, x: Tensor) -> AttackResult:
        """The result for inputs x (N, *) before anything was tried."""
        none = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        far = x.new_full((len(x),), torch.inf)
        return cls(x.detach().clone(), none > 0, far, none, none.clone(), none > 0, none - 1)

    def take(self, rows: Tensor, found: AttackResult, member: int = 0) -> None:
        """Take in what a member found on some rows (R,): the nearer inputs count, passes add up."""
        self.forwards[rows] += found.forwards
        self.backwards[rows] += found.backwards
        self.zero_gradient[rows] |= found.zero_gradient
        nearer = found.success & (found.distance < self.distance[rows])
        hit = rows[nearer]
        self.inputs[hit], self.distance[hit] = found.inputs[nearer], found.distance[nearer]
        self.success[hit] = True
        by = found.found_by[nearer]
        self.found_by[hit] = torch.where(by >= 0, by + member, by)


class Run:
    """The state of one attack on one batch; x, y, target, threat and seeds are those of the active samples.

    `index` (A,) maps active samples to their place in the batch.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        *,
        seeds: Tensor,
        target: Tensor | None = None,
        loss: str = "margin",
        judged: bool = True,
        smallest: bool = False,
        active_sets: bool = True,
        keeps_closest: bool = False,
    ) -> None:
        self.model, self.loss = model, loss
        y = y.to(x.device, torch.int64)
        self.x, self.y, self.target, self.threat, self.seeds = x, y, target, threat, seeds
        self.index = torch.arange(len(x), device=x.device)
        self.clean_logits: Tensor | None = None
        self.rival: Tensor | None = None
        self.wrong = torch.zeros_like(y, dtype=torch.bool)  # of the points seen last (A,)
        self.margin = torch.zeros_like(y, dtype=torch.float32)  # likewise, positive where wrong
        self.all_x, self.all_y, self.all_target, self.all_threat = x, y, target, threat
        self.all_seeds, self.all_clean = seeds, self.clean_logits
        self.judged, self.smallest, self.active_sets = judged, smallest, active_sets
        # Where nothing wrong is found, `found` holds the point that came closest to it, not the clean input.
        self.keeps_closest = keeps_closest
        self.found = x.clone() if judged else x
        self.best = x.new_full((len(x),), torch.inf, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
        self.forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.zero_gradient = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        # On an accelerator a look at the success mask waits for the queue: look every few steps.
        self._poll_every = 1 if x.device.type == "cpu" else 5
        self._since_poll = 0
        self._checked = False
        self._cost = draws_of(model)
        self._highest = torch.full_like(self.best, -torch.inf)

    @property
    def solved(self) -> Tensor:
        """Which samples of the batch (N,) have a wrong point on record."""
        return torch.isfinite(self.best)

    @property
    def settled(self) -> Tensor:
        """Which samples of the batch (N,) need no further search.

        For a fixed radius the solved ones; in a search for the smallest change the clean mistakes and,
        where a radius is given, those that have come within it.
        """
        if not self.smallest:
            return self.solved
        if self.all_threat.eps is None:
            return self.best == 0
        return self.best <= self.all_threat.radius(self.all_x).to(self.best.dtype)

    def look(self, points: Tensor) -> Tensor:
        """Logits (A, K) at points (A, *) without a gradient; wrong ones are remembered."""
        with torch.no_grad():
            logits: Tensor = self.model(points)
        self.forwards[self.index] += self._cost
        self._remember(points, logits)
        return logits

    def gradient(self, points: Tensor, loss: str | None = None) -> tuple[Tensor, Tensor]:
        """Loss (A,) and its input gradient (A, *) at points (A, *): one forward, one backward."""
        name = loss or self.loss

        def ascended(logits: Tensor) -> Tensor:
            if name == "rivals" and self.rival is None and self.target is None:
                self.aim(0)
            return attack_loss(name, logits, self.y, self.target, self.clean_logits, self.rival)[:, None]

        values, slopes = self.slopes(points, ascended)
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

        return self.slopes(points, gaps)

    def slopes(self, points: Tensor, functions: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Functions (A, C) of the logits at points (A, *), with their slopes (A, C, *): one forward, C backwards."""
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            logits = self.model(points)
            if not self._checked:
                self._check(logits)
            values = functions(logits)
            if not values.requires_grad:
                raise UsageError(
                    "the model's output carries no gradient to its input (is there a detach, a no_grad or a "
                    "conversion to NumPy in its forward?): an attack that follows gradients would find nothing"
                )
            count = values.shape[1]
            # A sum: a mean over the batch would underflow in half precision and tie samples together.
            rows = [
                torch.autograd.grad(values[:, c].sum(), points, retain_graph=c < count - 1)[0] for c in range(count)
            ]
        self.forwards[self.index] += self._cost
        self.backwards[self.index] += count * self._cost
        self._remember(points.detach(), logits.detach())
        slopes = torch.nan_to_num(torch.stack(rows, 1), nan=0.0, posinf=0.0, neginf=0.0)
        # A wrong point needs no direction, and some losses are constant beyond the boundary.
        flat = (slopes == 0).flatten(1).all(1)
        self.zero_gradient[self.index] |= flat & ~self.wrong if self.judged else flat
        return values.detach(), slopes

    def _remember(self, points: Tensor, logits: Tensor) -> None:
        if not self.judged:
            return
        self.margin = margin(logits, self.y, self.target)
        self.wrong = wrong = exceeds_rounding(logits, self.margin)
        if self.keeps_closest:
            self._remember_closest(points, logits)
        if points.device.type == "cpu" and not bool(wrong.any()):
            return
        # A run for a fixed radius keeps the first point; a search for the smallest keeps the nearest.
        before = self.best[self.index]
        if self.smallest:
            size = self.threat.distance(points - self.x).to(before.dtype)
            # Points that tie but for rounding are one and the same: the first of them is kept.
            better = wrong & (size < before * (1 - _TIE))
        else:
            size = torch.zeros_like(before)
            better = wrong & torch.isinf(before) & self.threat.allows(self.x, points)
        self.best[self.index] = torch.where(better, size, before)
        place = better.view(-1, *[1] * (points.ndim - 1))
        self.found[self.index] = torch.where(place, points, self.found[self.index])

    def _remember_closest(self, points: Tensor, logits: Tensor) -> None:
        before = self._highest[self.index]
        gain = (self.margin - before).to(before.dtype) - _TIE * logits.abs().amax(1).to(before.dtype)
        better = (gain > 0) & ~self.solved[self.index]
        self._highest[self.index] = torch.where(better, self.margin.to(before.dtype), before)
        place = better.view(-1, *[1] * (points.ndim - 1))
        self.found[self.index] = torch.where(place, points, self.found[self.index])

    def drop_solved(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Let settled samples leave; returns the caller's per-sample tensors (A, ...) without them."""
        if not self.judged or not self.active_sets or (self.smallest and self.all_threat.eps is None):
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
        self._select(mask.nonzero().squeeze(1))
        return tuple(t[mask] for t in tensors)

    def restart(self) -> None:
        """Make all samples of the batch that are not settled active again, from their clean inputs."""
        self.index = torch.arange(len(self.all_x), device=self.all_x.device)
        self.x, self.y, self.target, self.threat = self.all_x, self.all_y, self.all_target, self.all_threat
        self.seeds, self.clean_logits, self.rival = self.all_seeds, self.all_clean, None
        if self.judged and self.active_sets:
            self.keep(~self.settled)

    def aim(self, rank: int) -> None:
        """Set the rival of each active sample: the wrong class that was `rank`-th most likely when clean."""
        assert self.clean_logits is not None
        order = self.clean_logits.scatter(1, self.y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
        self.rival = order[:, rank % (order.shape[1] - 1)]

    def _select(self, rows: Tensor) -> None:
        self.index, self.x, self.y = self.index[rows], self.x[rows], self.y[rows]
        self.seeds = self.seeds[rows.cpu()]
        self.target = self.target[rows] if self.target is not None else None
        self.clean_logits = self.clean_logits[rows] if self.clean_logits is not None else None
        self.rival = self.rival[rows] if self.rival is not None else None
        if isinstance(self.threat.eps, Tensor) and self.threat.eps.ndim == 1:
            self.threat = self.threat.at(self.threat.eps.to(rows.device)[rows])

    def begin(self, target: Tensor | str | None = None) -> None:
        """Look at the clean inputs: check the model's output, settle the target, drop clean mistakes."""
        with torch.no_grad():
            logits = self.model(self.x)
        self._check(logits)
        self.forwards += self._cost
        self.clean_logits = logits
        self.all_target = self.target = resolve_target(target, logits, self.y, self.seeds)
        self.all_clean = logits
        self._remember(self.x, logits)
        self.restart()

    def _check(self, logits: Tensor) -> None:
        check_logits(logits, len(self.x))
        check_inputs(self.x, self.y, self.threat.bounds, logits.shape[1])
        self._checked = True

    def result(self) -> AttackResult:
        """Judge what was remembered and close the run."""
        success, passes = judge(
            self.model, self.all_x, self.found, self.all_y, self.all_threat, self.all_target, self.solved
        )
        self.forwards += passes
        place = success.view(-1, *[1] * (self.found.ndim - 1))
        distance = self.all_threat.distance(self.found - self.all_x)
        return AttackResult(
            inputs=torch.where(place, self.found, self.all_x),
            success=success,
            distance=torch.where(success, distance, torch.inf),
            forwards=self.forwards,
            backwards=self.backwards,
            zero_gradient=self.zero_gradient,
            found_by=torch.where(success & (distance > 0), 0, -1),
        )


def judge(
    model: nn.Module,
    x: Tensor,
    candidates: Tensor,
    y: Tensor,
    threat: Threat,
    target: Tensor | None = None,
    considered: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Which candidates (N,) are allowed and wrong when run again in another batch composition.

    The considered ones are run in reverse order beside their clean inputs, so that no candidate
    meets the neighbors among which it was found. Returns success and forwards spent, both (N,).
    """
    success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    passes = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    rows = torch.arange(len(x), device=x.device) if considered is None else considered.nonzero().squeeze(1)
    if len(rows) == 0:
        return success, passes
    rows = rows.flip(0)
    with torch.no_grad():
        # In halves, so that the doubled batch needs no more memory than the search did.
        parts = rows.chunk(2)
        logits = torch.cat([model(torch.cat([candidates[part], x[part]]))[: len(part)] for part in parts])
    wrong = is_adversarial(logits, y[rows], target[rows] if target is not None else None)
    success[rows] = wrong
    success &= threat.allows(x, candidates)
    passes[rows] = 2 * draws_of(model)
    return success, passes


def check_threat(model: nn.Module, threat: Threat) -> None:
    """Refuse a threat whose bounds are not those of the classifier."""
    bounds = bounds_of(model)
    if bounds is not None and bounds != tuple(threat.bounds):
        raise UsageError(
            f"the threat has bounds {tuple(threat.bounds)} but the classifier {bounds}: "
            f"give bounds={bounds} to the threat"
        )
