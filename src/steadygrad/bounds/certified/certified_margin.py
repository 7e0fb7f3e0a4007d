"""How far the margin of a class can fall, for every point of the ball."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.arguments import Classes, Inputs, public
from steadygrad.bounds.bound import BOUNDS, check_float64
from steadygrad.bounds.certified.ball import Ball, ball_of
from steadygrad.bounds.certified.better_lines import BetterLines
from steadygrad.bounds.certified.chosen_units import lines_of, tightened_where_it_matters
from steadygrad.bounds.certified.crown import largest, value_intervals
from steadygrad.bounds.certified.intervals import Interval
from steadygrad.bounds.certified.network import Network
from steadygrad.bounds.certified.propagation import slope_intervals
from steadygrad.bounds.certified.rounding import check_reading, rounding_of_logits, unit_of
from steadygrad.bounds.certified.tracing import trace
from steadygrad.calling import called
from steadygrad.classifier import check_classes, check_inputs, frozen
from steadygrad.derivatives import math_attention
from steadygrad.errors import UsageError
from steadygrad.memory import at_once
from steadygrad.registry import Method
from steadygrad.threat import Norm, Threat
from steadygrad.values import Count, Whole

NORMS = ("linf", "l2", "l1")
_TRIED = 8  # inputs around which the reading of a model is compared with it


@dataclass(frozen=True)
class MarginBound:
    """What is certain about the margins of classes within a threat.

    Attributes:
        margins: (N, K); for no allowed input, the logit of the class is above that of class k by less. Infinite at the
            class itself.
        forwards, backwards: (N,) passes through the network that each sample took, in both directions.
    """

    margins: Tensor
    forwards: Tensor
    backwards: Tensor

    @property
    def margin(self) -> Tensor:
        """The least margin (N,) over the other classes."""
        return self.margins.amin(1)

    @property
    def certified(self) -> Tensor:
        """Whether every allowed input is given the class, (N,)."""
        return self.margin > 0


@BOUNDS.register(
    "margin",
    summary="how far the margin of a class can fall for any allowed input: a certificate of robustness",
    reference="Zhang et al. 2018, arXiv 1811.00866 (CROWN); Xu et al. 2021, arXiv 2011.13824 (optimized slopes)",
    cost="8 forwards, 2 (K - 1) backwards, 2 more for each of `units`, 4 for the mean value form, 3 passes a step",
    soundness="certified",
    order=1,
    norms=NORMS,
)
@dataclass(frozen=True)
class CertifiedMargin(Method):
    """Bounds the margin of a class from below, for every allowed input at once.

    A sample whose least margin is positive is certified: no change within the threat makes the model answer another
    class. The margin over each class is a linear function of the logits that is taken back to the input through lines
    around every curve (CROWN); then the lines of the class that comes nearest are improved by gradient steps. Where it
    is less pessimistic, the mean value form counts: the margin at x minus what slopes in their intervals can take off.

    Args:
        steps: improvements, each of the class that comes nearest by then: first the mean value form, then the lines.
        units: so many units of each sample, those that loosen its bound most, get linear bounds of their own: tighter,
            and slower by two backwards for each.
        chunk: samples in one pass at most, fewer of large ones; changes no value.

    Source: Zhang et al. 2018, arXiv:1811.00866; Xu et al. 2021, arXiv:2011.13824; the layers are listed in
    `docs/concepts/bounds.md`.

    >>> from steadygrad import linf
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x = torch.rand(2, 4)
    >>> found = CertifiedMargin()(model, x, model(x).argmax(1), linf(1e-4))
    >>> found.margin.shape, bool(found.certified.all())
    (torch.Size([2]), True)
    """

    steps: Whole = 4
    units: Whole = 10
    chunk: Count = 64

    @public
    def __call__(self, model: nn.Module, x: Inputs, y: Classes, threat: Threat) -> MarginBound:
        """Bounds for inputs x (N, *) with classes y (N,); the model is left as it was.

        Args:
            threat: "linf", "l2" or "l1" with a radius; its bounds of the inputs and its mask count.

        Raises:
            UsageError: another norm, no radius, a layer that has no bounds (named), inputs or classes that do not fit.
        """
        network, x, unit = self._prepared(model, x, y, threat)
        threat.radius(x)
        threat.changeable(x)
        parts = [self._batch(network, x[some], y[some], threat.rows(some, x), unit) for some in self._batches(x)]
        return replace(
            parts[0],
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])},
        )

    @public
    def radius(self, model: nn.Module, x: Inputs, y: Classes, norm: Norm | Threat, *, trials: Count = 10) -> Tensor:
        """The largest radius (N,) found at which each sample is certified; 0 where it is not even by itself.

        Args:
            norm: "linf", "l2" or "l1", or a threat with the bounds of the inputs and a mask; its radius is not used.
            trials: radii that are tried for each sample, first what the gradient tells; each halves what is open.

        Raises:
            UsageError: as for a call.
        """
        threat = norm.at(None) if isinstance(norm, Threat) else Threat(norm, None)
        network, x, unit = self._prepared(model, x, y, threat)
        parts = [
            self._radius(network, x[some], y[some], threat.rows(some, x), unit, trials) for some in self._batches(x)
        ]
        return torch.cat(parts)

    def _prepared(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> tuple[Network, Tensor, float]:
        if threat.norm not in NORMS:
            raise UsageError(f"certified margins exist for linf, l2 and l1, not for {threat.norm}")
        check_float64(x)
        check_inputs(x, y, threat.bounds)
        x, model = x.detach(), called(model)
        unit = unit_of(model, x)
        with frozen(model), math_attention(), torch.no_grad():
            classes = model(x[:1]).shape[1]
            if classes < 2:
                raise UsageError(f"a margin is that over another class, and the model has {classes}")
            check_classes(y, classes)
            network = trace(model, x)
            check_reading(model, network, _around(x, threat), unit)
        return network, x, unit

    def _batches(self, x: Tensor) -> list[slice]:
        size = at_once(self.chunk, x.shape[1:], x.device, order=2)
        return [slice(first, first + size) for first in range(0, len(x), size)]

    @torch.no_grad()
    def _batch(self, network: Network, x: Tensor, y: Tensor, threat: Threat, unit: float) -> MarginBound:
        ball = ball_of(x, threat)
        intervals = value_intervals(network, ball, 0)
        logits = intervals[-1]
        count, classes = logits.center.shape
        rounding = rounding_of_logits(network, intervals, unit)
        others = torch.arange(classes, device=y.device).expand(count, -1)
        rivals = others[others != y[:, None]].view(count, classes - 1)
        every = _falls(rivals, y, classes)  # (K - 1, N, K)
        lines, seen = lines_of(network, intervals), dict[int, Tensor]()
        last = len(network.steps)
        best = -largest(network, ball, intervals, last, every, lines, seen).T  # (N, K - 1)
        best = torch.maximum(best, logits.low.gather(1, y[:, None]) - logits.high.gather(1, rivals))
        forwards, backwards = 6, classes - 1  # of single samples: one sent through as a size counts too
        if self.units and lines:
            intervals = tightened_where_it_matters(network, ball, intervals, lines, seen, self.units)
            lines = lines_of(network, intervals)
            best = torch.maximum(best, -largest(network, ball, intervals, last, every, lines).T)
            forwards, backwards = forwards + 2, backwards + 2 * self.units + classes - 1
        search = BetterLines(network, ball, intervals, lines)
        for step in range(self.steps if classes > 1 else 0):
            worst = best.argmin(1, keepdim=True)
            rows = _falls(rivals.gather(1, worst), y, classes)
            if step == 0:
                found = _mean_value(network, ball, intervals, rows[0], rounding)
                backwards += 4
            else:
                found = -search.improved(rows)
                forwards, backwards = forwards + 2, backwards + 1
            best = best.scatter_reduce(1, worst, found[:, None], "amax")
        best = best - rounding.gather(1, y[:, None]) - rounding.gather(1, rivals)
        best = torch.nan_to_num(best, nan=-math.inf, posinf=math.inf, neginf=-math.inf)
        margins = torch.full((count, classes), math.inf, dtype=best.dtype, device=best.device).scatter(1, rivals, best)
        return MarginBound(margins, *(torch.full_like(y, passes) for passes in (forwards, backwards)))

    def _radius(self, network: Network, x: Tensor, y: Tensor, threat: Threat, unit: float, trials: int) -> Tensor:
        def certified(radius: Tensor) -> Tensor:
            return self._batch(network, x, y, threat.at(radius), unit).certified

        most = threat.at(0.0).largest(x).double()
        low = torch.zeros_like(most)
        high = torch.full_like(low, math.inf)
        there = certified(low)
        guess = torch.minimum(_first_order_radius(network, x.double(), y, threat.norm), most)
        for _ in range(trials):
            trial = torch.where(high.isinf(), torch.where(low > 0, 2 * low, guess).minimum(most), (low + high) / 2)
            holds = certified(trial)
            low, high = torch.where(holds, trial, low), torch.where(holds, high, trial)
        return torch.where(there, low, 0.0)


def _around(x: Tensor, threat: Threat) -> Tensor:
    """Some of the inputs, and points near and far from them, at random and in corners, on which a reading is tried."""
    low, high = threat.bounds
    some, width = x[:_TRIED], min(high - low, 1e3)
    points = [some]
    seeds = torch.arange(len(some))
    for draw, scale in enumerate((0.001, 0.03, 0.3)):
        noise = randomness.normal(seeds, some, draw)
        points += [(some + scale * width * way).clamp(low, high) for way in (noise.clamp(-1, 1), noise.sign())]
    return torch.cat(points)


def _falls(rivals: Tensor, y: Tensor, classes: int) -> Tensor:
    """The functions (R, N, K) of the logits that say by how much each rival (N, R) is above the class y (N,)."""
    rows = torch.nn.functional.one_hot(rivals.T, classes) - torch.nn.functional.one_hot(y, classes)
    return rows.double()


def _mean_value(network: Network, ball: Ball, intervals: list[Interval], fall: Tensor, rounding: Tensor) -> Tensor:
    """At most what is left (N,) of the negative of functions (N, K) of the logits, by the mean value theorem.

    Args:
        rounding: at least how far the logits (N, K) at the center may be off.
    """
    slope = Interval(-fall, -fall, -fall, torch.zeros_like(fall))
    found = slope_intervals(network, intervals, slope)
    logits = intervals[-1]
    margin = -(fall * logits.center).sum(1) - (fall.abs() * rounding).sum(1)
    if 0 not in found:
        return margin
    low, high = found[0].low, found[0].high
    # Each entry of the change has the sign that the box lets it have.
    down, up = ball.low - ball.center, ball.high - ball.center
    corners = torch.stack([low * down, low * up, high * down, high * up]).amin(0)
    loss = -corners.flatten(1).sum(1)
    if ball.radius is not None:
        loss = torch.minimum(loss, ball.farthest(torch.maximum(low.abs(), high.abs())))
    return margin - loss * (1 + 2.0**-40) - 2.0**-40 * (logits.size * fall.abs()).sum(1)


def _first_order_radius(network: Network, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """Where the margin over the nearest class is used up to first order, (N,)."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits = network(leaf)
        own = logits.gather(1, y[:, None])[:, 0]
        other = logits.scatter(1, y[:, None], -math.inf).amax(1)
        (slope,) = torch.autograd.grad((own - other).sum(), leaf)
    dual = {"linf": 1.0, "l2": 2.0, "l1": math.inf}[norm]
    size = torch.linalg.vector_norm(slope.flatten(1), dual, dim=1)
    guess: Tensor = (own - other).detach().clamp_min(0) / size.clamp_min(1e-30)
    return guess.clamp(1e-9, 1e9)
