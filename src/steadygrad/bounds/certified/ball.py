"""The inputs that a threat allows, and the largest value of a linear function among them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from steadygrad.bounds.box import allowed_box
from steadygrad.bounds.certified.intervals import UNIT, Interval
from steadygrad.threat import Threat, per_sample

_PRICES = 12  # prices of the norm that are tried: any gives a bound


@dataclass(frozen=True)
class Ball:
    """The inputs (N, *) between low and high, and within a radius (N,) of the center, in l2 or l1, if one is given."""

    center: Tensor
    low: Tensor
    high: Tensor
    radius: Tensor | None = None
    norm: str = "l2"

    @property
    def interval(self) -> Interval:
        """What is known about the entries."""
        return Interval(self.center, self.low, self.high, torch.zeros_like(self.center))

    def rows(self, rows: Tensor) -> Ball:
        """The ball around some of the inputs."""
        center, low, high = (v[rows] for v in (self.center, self.low, self.high))
        return Ball(center, low, high, None if self.radius is None else self.radius[rows], self.norm)

    def between(self, baseline: Tensor, node: float) -> Ball:
        """A ball around the points baseline + node (x - baseline) of all its inputs x."""
        center, low, high = (baseline + node * (v - baseline) for v in (self.center, self.low, self.high))
        slack = 4 * UNIT * (center.abs() + baseline.abs())
        radius = None if self.radius is None else node * self.radius + slack.flatten(1).sum(1)
        return Ball(center, low - slack, high + slack, radius, self.norm)

    def largest(self, rows: Tensor) -> Tensor:
        """At least the largest value (R, N) of linear functions (R, N, *) on the ball."""
        flat = rows.flatten(2)
        low, high, center = (v.flatten(1) for v in (self.low, self.high, self.center))
        best = (flat.clamp_min(0) * high + flat.clamp_max(0) * low).sum(2)
        size = torch.maximum(low.abs(), high.abs())
        if self.radius is not None:
            size = size + self.radius[:, None]
            best = torch.minimum(best, (flat * center).sum(2) + self._farthest(flat, low - center, high - center))
        slack = 8 * (flat.shape[2] + 8) * UNIT
        return best + slack * (flat.abs() * size).sum(2)

    def _farthest(self, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """At least the largest rows . change (R, N) for changes between low and high, (N, D), and within the radius.

        Any price on the norm gives a bound: what a change gains at most beyond its price, plus the price of the radius.
        """
        assert self.radius is not None
        gain = self._beyond_l2 if self.norm == "l2" else self._beyond_l1
        with torch.no_grad():
            ideal = torch.linalg.vector_norm(rows, 2 if self.norm == "l2" else math.inf, dim=2)  # without the box
            price = ideal if self.norm == "l1" else ideal / self.radius.clamp_min(1e-300)
            best, least = price, torch.full_like(price, torch.inf)
            under, over = torch.zeros_like(price), price
            for _ in range(_PRICES):
                value, used = gain(rows, low, high, price)
                best, least = torch.where(value < least, price, best), torch.minimum(value, least)
                # Too much is used: the price is too low.
                under, over = torch.where(used > 1, price, under), torch.where(used > 1, over, price)
                price = (under + over) / 2
        return gain(rows, low, high, best)[0]

    def _beyond_l2(self, rows: Tensor, low: Tensor, high: Tensor, price: Tensor) -> tuple[Tensor, Tensor]:
        assert self.radius is not None
        change = rows / price.clamp_min(1e-300)[:, :, None]
        change = torch.minimum(torch.maximum(change, low), high)
        size = change.square().sum(2)
        value = (rows * change).sum(2) + 0.5 * price * (self.radius.square() - size)
        return value, size / self.radius.square().clamp_min(1e-300)

    def _beyond_l1(self, rows: Tensor, low: Tensor, high: Tensor, price: Tensor) -> tuple[Tensor, Tensor]:
        assert self.radius is not None
        up, down = ((sign * rows - price[:, :, None]).clamp_min(0) for sign in (1, -1))
        used = ((up > 0) * high - (down > 0) * low).sum(2)
        value = (up * high - down * low).sum(2) + price * self.radius
        return value, used / self.radius.clamp_min(1e-300)

    def farthest(self, slopes: Tensor) -> Tensor:
        """At least the largest sum (N,) of slopes (N, *), not negative, times the size of a change of each entry."""
        low, high = (v - self.center for v in (self.low, self.high))
        reach = torch.maximum(high, -low)
        around = Ball(torch.zeros_like(reach), torch.zeros_like(reach), reach, self.radius, self.norm)
        return around.largest(slopes[None])[0]


def ball_of(x: Tensor, threat: Threat) -> Ball:
    """The allowed inputs around x (N, *), in float64; it also holds what rounding in the type of the inputs lets in."""
    inputs = x.double()
    low, high = allowed_box(inputs, threat)
    ulp = 2 * torch.finfo(x.dtype).eps if x.dtype != torch.float64 else 2.0**-50
    most = torch.maximum(inputs.abs(), torch.maximum(low.abs(), high.abs()))
    slack = ulp * most.flatten(1).amax(1)
    # Nothing is rounded where nothing may change.
    place = threat.masked(per_sample(slack, x).expand_as(inputs))
    radius = None
    if threat.norm != "linf":
        entries = x[0].numel()
        radius = threat.radius(inputs) * (1 + ulp) + slack * (math.sqrt(entries) if threat.norm == "l2" else entries)
    return Ball(inputs, low - place, high + place, radius, threat.norm)
