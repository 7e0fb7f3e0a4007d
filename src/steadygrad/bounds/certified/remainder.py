"""Intervals of every entry of an attribution, and what first order leaves out of it.

Every nonlinear layer is its tangent at the center plus a remainder that is bounded on the ball. Interval
arithmetic passes these remainders on by absolute weights, layer after layer, and forgets their signs
each time. But each of them enters the gradient g = dF/dx by a coefficient that is known: what a layer's
output h leaves out by d^2 F / dx dh, what the slope dF/dz of its input leaves out by dz/dx. The same
coefficients say how far h, z and their slopes move to first order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from steadygrad.attributions.attribution import Of, score
from steadygrad.bounds.certified.ball import Ball
from steadygrad.bounds.certified.intervals import Interval, product, total
from steadygrad.bounds.certified.network import Network
from steadygrad.bounds.certified.propagation import Propagation, propagate, slope_intervals
from steadygrad.bounds.path import Path
from steadygrad.threat import per_sample

# Coefficients are rounded: by less than this share of what interval arithmetic makes of them.
_ROUNDED = 1e-9
_ROUNDS = 2
_KEPT = 2**26  # coefficients that are kept rather than taken again

Key = tuple[str, int]
_INPUT: Key = ("input", 0)


def map_intervals(
    network: Network, path: Path, ball: Ball, target: Tensor, units: int, exact: int, chunk: int
) -> tuple[Interval, Tensor | None]:
    """Intervals (N, *) of the map g = s * sum_k w_k grad F(points), for classes target (N,).

    Besides, for inputs of at most `exact` entries, sum_k w_k a_k H_k (N, D, D) with the Hessians H_k there.
    """
    slopes, hessians = [], []
    for weight, node in zip(path.weights, path.nodes):
        near = ball.between(path.base(ball.center), node)
        slope, hessian = gradient_intervals(network, path.of, near, target, units, exact, chunk)
        slopes.append(slope)
        if hessian is not None:
            hessians.append(weight * node * hessian)
    mean = total(slopes, path.weights)
    hessian = torch.stack(hessians).sum(0) if len(hessians) == len(slopes) else None
    if not path.scaled:
        return mean, hessian
    center, low, high = (v - path.base(ball.center) for v in (ball.center, ball.low, ball.high))
    scale = Interval(center, low, high, torch.zeros_like(center)).widened(4).exact()
    return product(scale, mean), hessian


def gradient_intervals(
    network: Network, of: Of, ball: Ball, target: Tensor, units: int, exact: int = 0, chunk: int = 1
) -> tuple[Interval, Tensor | None]:
    """Intervals (N, *) of the gradient of the score of classes target (N,) over a ball; its Hessian, if taken."""
    wide = propagate(network, of, ball, target, units)
    if 0 not in wide.slopes:  # the score does not depend on the input
        zero = torch.zeros_like(ball.center)
        return Interval(zero, zero, zero, zero), None
    # A product has two inputs, whose remainders enter together: intervals hold for it, coefficients do not.
    if ball.center[0].numel() > exact or any(layer.nonlinear and len(inputs) > 1 for layer, inputs in network.steps):
        return wide.slopes[0], None
    point = propagate(network, of, Ball(ball.center, ball.center, ball.center), target, 0)
    return refined_gradient(wide, of, ball, target, point.slopes[0].rest, chunk)


def refined_gradient(
    wide: Propagation, of: Of, ball: Ball, target: Tensor, rounding: Tensor, chunk: int
) -> tuple[Interval, Tensor]:
    """A narrower interval (N, *) of the gradient over a ball, and the Hessian (N, D, D) at its center.

    `wide` is what interval arithmetic says, `rounding` what rounding leaves out of the gradient at the center.
    """
    every = _Coefficients(wide.network, of, ball.center, target, chunk)
    coefficients = list(every) if every.numel() <= _KEPT else every
    changes = _FirstOrderChanges(ball)
    hessian = torch.empty(len(target), *[ball.center[0].numel()] * 2, dtype=ball.center.dtype, device=target.device)
    for which, parts in coefficients:
        hessian[:, which] = parts[_INPUT].flatten(2).transpose(0, 1)
        for key, part in parts.items():
            if key != _INPUT:
                changes.add(key, which, part)
    first = {key: changes.ends(key) for key in changes.sums}
    narrow = wide
    for _ in range(_ROUNDS):
        narrow = _narrower(narrow, first, wide)
    remainders = _remainders(narrow)
    rest = torch.zeros_like(ball.center).flatten(1)
    for which, parts in coefficients:
        for key, part in parts.items():
            if key in remainders:
                rest[:, which] += (part.abs() * remainders[key]).flatten(2).sum(2).T
    loose, found = wide.slopes[0], narrow.slopes[0]
    rest = rest.view_as(ball.center) + _ROUNDED * loose.rest + rounding
    found = replace(found, rest=torch.minimum(found.rest, rest))
    return _within(found, changes.of(hessian, found.center), _ROUNDED * loose.radius), hessian


class _Coefficients:
    """The coefficients with which everything enters each entry of the gradient, some entries at a time."""

    def __init__(self, network: Network, of: Of, x: Tensor, target: Tensor, chunk: int) -> None:
        self.count, self.entries = len(x), x[0].numel()
        self.copies = min(self.entries, max(1, chunk // self.count))
        self.parts: dict[Key, Tensor] = {}
        with torch.enable_grad():
            points = x.detach().repeat(self.copies, *[1] * (x.ndim - 1)).requires_grad_()
            self.parts[_INPUT] = points
            values = [points]
            for place, (layer, inputs) in enumerate(network.steps, start=1):
                value = layer.plain(*(values[i] for i in inputs))
                if layer.nonlinear:
                    self.parts["slope", inputs[0]] = torch.zeros_like(values[inputs[0]], requires_grad=True)
                    self.parts["value", place] = torch.zeros_like(value, requires_grad=True)
                    value = value + self.parts["value", place]
                values.append(value)
            last = len(network.steps)
            self.parts["slope", last] = torch.zeros_like(values[last], requires_grad=True)
            whole = score(values[last], target.repeat(self.copies), of).sum()
            for (kind, place), part in self.parts.items():
                if kind == "slope":
                    # A term s . z in the score adds s to the slope of z.
                    whole = whole + (part * values[place]).sum()
            (self.slope,) = torch.autograd.grad(whole, points, create_graph=True)

    def numel(self) -> int:
        """How many coefficients there are."""
        return self.entries * sum(part.numel() for part in self.parts.values()) // self.copies

    def __iter__(self) -> Iterator[tuple[Tensor, dict[Key, Tensor]]]:
        """Entries (R,), and for each part of the network its coefficients (R, N, *) there."""
        for start in range(0, self.entries, self.copies):
            which = torch.arange(start, min(start + self.copies, self.entries), device=self.slope.device)
            unit = torch.zeros(self.copies, self.count, self.entries, dtype=self.slope.dtype, device=self.slope.device)
            unit[torch.arange(len(which)), :, which] = 1
            found = torch.autograd.grad(
                self.slope, list(self.parts.values()), unit.view_as(self.slope), retain_graph=True, allow_unused=True
            )
            parts = {}
            for (key, part), got in zip(self.parts.items(), found):
                rows = torch.zeros_like(part) if got is None else got
                parts[key] = rows.view(self.copies, self.count, *part.shape[1:])[: len(which)]
            yield which, parts


class _FirstOrderChanges:
    """First-order changes over a ball, from their coefficients."""

    def __init__(self, ball: Ball) -> None:
        low, high = ((v - ball.center).flatten(1) for v in (ball.low, ball.high))
        self.middle, self.half, self.radius = (low + high) / 2, (high - low) / 2, ball.radius  # (N, D), (N,)
        self.sums: dict[Key, list[Tensor]] = {}

    def add(self, key: Key, which: Tensor, part: Tensor) -> None:
        """Coefficients (R, N, *) of the entries `which` of the input; they are those of the gradient's entries."""
        sums = self.sums.setdefault(key, [torch.zeros_like(part[0]) for _ in range(3)])
        for entry, weights, power in zip(sums, (self.middle, self.half, torch.ones_like(self.half)), (None, 1, 2)):
            share = weights[:, which].T.view(*part.shape[:2], *[1] * (part.ndim - 2))
            entry += ((part if power is None else part.abs() ** power) * share).sum(0)

    def ends(self, key: Key) -> tuple[Tensor, Tensor]:
        """The least and the largest first-order change (N, *)."""
        shift, spread, square = self.sums[key]
        low, high = shift - spread, shift + spread
        if self.radius is not None:
            far = per_sample(self.radius, shift) * square.sqrt()
            low, high = torch.maximum(low, -far), torch.minimum(high, far)
        return low, high

    def of(self, matrix: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The same for rows of a matrix (N, D, D)."""
        self.add(_INPUT, torch.arange(matrix.shape[2], device=matrix.device), matrix.permute(2, 0, 1))
        low, high = self.ends(_INPUT)
        return low.view_as(like), high.view_as(like)


def _within(interval: Interval, change: tuple[Tensor, Tensor], slack: Tensor) -> Interval:
    """The interval cut to its center plus first-order changes plus its rest."""
    rest = interval.rest + slack
    return interval.cut(interval.center + change[0] - rest, interval.center + change[1] + rest)


def _narrower(old: Propagation, first: dict[Key, tuple[Tensor, Tensor]], wide: Propagation) -> Propagation:
    """The same values and slopes once more, each cut to what it can reach; `wide` is how it all began."""

    def cut(key: Key, before: Interval, new: Interval, began: Interval) -> Interval:
        low, high = torch.maximum(before.low, new.low), torch.minimum(before.high, new.high)
        low, high = torch.minimum(low, before.center), torch.maximum(high, before.center)
        both = Interval(before.center, low, high, torch.minimum(before.rest, new.rest))
        return _within(both, first[key], _ROUNDED * began.radius) if key in first else both

    # The coefficients of a value's slope are how the value moves, and the other way around.
    values = old.values[:1]
    for place, (layer, inputs) in enumerate(old.network.steps, start=1):
        new = layer.forward(*(values[i] for i in inputs))
        values.append(cut(("slope", place), old.values[place], new, wide.values[place]))

    def narrow(place: int, new: Interval) -> Interval:
        return cut(("value", place), old.slopes[place], new, wide.slopes[place])

    return replace(old, values=values, slopes=slope_intervals(old.network, values, old.logit_slope, narrow))


def _remainders(found: Propagation) -> dict[Key, Tensor]:
    """What each nonlinear layer leaves out by itself: of its output, and of the slope of its input."""
    out: dict[Key, Tensor] = {("slope", len(found.network.steps)): found.exact_logit_slope.rest}
    for place, (layer, inputs) in enumerate(found.network.steps, start=1):
        if layer.nonlinear and place in found.slopes:
            x = found.values[inputs[0]].exact()
            out["value", place] = layer.forward(x).rest
            key = ("slope", inputs[0])
            back = layer.backward(found.slopes[place].exact(), x)[0].rest
            out[key] = out[key] + back if key in out else back
    return out
