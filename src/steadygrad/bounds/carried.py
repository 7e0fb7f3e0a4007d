"""What the first order leaves out of a gradient, carried to it by exact derivatives.

Every bent layer is its tangent at the center plus a remainder that is bounded on the ball. Interval
arithmetic carries these remainders on by absolute weights, layer after layer, and forgets their signs
each time. But each of them enters the gradient g = dF/dx by a coefficient that is known: what a layer's
output h leaves out by d^2 F / dx dh, what the slope dF/dz of its input leaves out by dz/dx. The same
coefficients say how far h, z and their slopes move to first order.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from steadygrad.attributions.attribution import Of, score
from steadygrad.bounds.layers import Rectify
from steadygrad.bounds.network import Network
from steadygrad.bounds.pooling import MaxPool
from steadygrad.bounds.relaxation import Ball
from steadygrad.bounds.spans import Span
from steadygrad.bounds.sweep import Sweep, backward

__all__ = ["carried"]

# Coefficients are rounded: by less than this share of what interval arithmetic makes of them.
_ROUNDED = 1e-9
_SWEEPS = 2
_KEPT = 2**26  # coefficients that are kept rather than taken again

Key = tuple[str, int]
_INPUT: Key = ("input", 0)


def carried(sweep: Sweep, of: Of, ball: Ball, target: Tensor, rounding: Tensor, chunk: int) -> tuple[Span, Tensor]:
    """A narrower span (N, *) of the gradient over a ball, and the Hessian (N, D, D) at its center.

    Args:
        sweep: what interval arithmetic says of all values and slopes.
        rounding: what rounding leaves out of the gradient (N, *) at the center.
        chunk: points in one pass.
    """
    rows = _Rows(sweep.network, of, ball.center, target, chunk)
    reach = _Reach(ball)
    hessian = torch.empty(len(target), *[ball.center[0].numel()] * 2, dtype=ball.center.dtype, device=target.device)
    for which, parts in rows:
        hessian[:, which] = parts[_INPUT].flatten(2).transpose(0, 1)
        for key, part in parts.items():
            if key != _INPUT:
                reach.add(key, which, part)
    first = {key: reach.ends(key) for key in reach.sums}
    wide = sweep
    for _ in range(_SWEEPS):
        sweep = _narrower(sweep, first, wide)
    left_out = _left_out(sweep)
    rest = torch.zeros_like(ball.center).flatten(1)
    for which, parts in rows:
        for key, part in parts.items():
            if key in left_out:
                rest[:, which] += (part.abs() * left_out[key]).flatten(2).sum(2).T
    loose = wide.slopes[0]
    rest = rest.view_as(ball.center) + _ROUNDED * loose.rest + rounding
    span = sweep.slopes[0]
    span = Span(span.center, span.low, span.high, torch.minimum(span.rest, rest))
    return _within(span, *reach.of(hessian, span.center), _ROUNDED * loose.radius), hessian


class _Rows:
    """The coefficients with which everything enters each entry of the gradient, some entries at a time."""

    def __init__(self, network: Network, of: Of, x: Tensor, target: Tensor, chunk: int) -> None:
        self.count, self.entries = len(x), x[0].numel()
        self.copies = min(self.entries, max(1, chunk // self.count))
        self.parts: dict[Key, Tensor] = {}
        self.kept: list[tuple[Tensor, dict[Key, Tensor]]] = []
        with torch.enable_grad():
            points = x.detach().repeat(self.copies, *[1] * (x.ndim - 1)).requires_grad_()
            self.parts[_INPUT] = points
            values = [points]
            for place, (layer, inputs) in enumerate(network.steps, start=1):
                value = layer.plain(*(values[i] for i in inputs))
                if isinstance(layer, Rectify | MaxPool):
                    self.parts["slope", inputs[0]] = torch.zeros_like(values[inputs[0]], requires_grad=True)
                    self.parts["value", place] = torch.zeros_like(value, requires_grad=True)
                    value = value + self.parts["value", place]
                values.append(value)
            last = len(network.steps)
            self.parts["slope", last] = torch.zeros_like(values[last], requires_grad=True)
            total = score(values[last], target.repeat(self.copies), of).sum()
            for (kind, place), part in self.parts.items():
                if kind == "slope":
                    # A term s . z in the score adds s to the slope of z.
                    total = total + (part * values[place]).sum()
            (self.slope,) = torch.autograd.grad(total, points, create_graph=True)

    def __iter__(self) -> Iterator[tuple[Tensor, dict[Key, Tensor]]]:
        """Entries (R,), and for each part of the network its coefficients (R, N, *) there; kept if there are few."""
        if self.kept:
            yield from self.kept
            return
        few = self.entries * sum(part.numel() for part in self.parts.values()) // self.copies <= _KEPT
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
            if few:
                self.kept.append((which, parts))
            yield which, parts


class _Reach:
    """First-order changes over a ball, from their coefficients."""

    def __init__(self, ball: Ball) -> None:
        low, high = ((v - ball.center).flatten(1) for v in (ball.low, ball.high))
        self.middle, self.half, self.radius = (low + high) / 2, (high - low) / 2, ball.radius  # (N, D), (N,)
        self.sums: dict[Key, list[Tensor]] = {}

    def add(self, key: Key, which: Tensor, part: Tensor) -> None:
        """Coefficients (R, N, *) of the entries `which` of the input; they are those of the gradient's entries."""
        sums = self.sums.setdefault(key, [torch.zeros_like(part[0]) for _ in range(3)])
        for total, weights, power in zip(sums, (self.middle, self.half, torch.ones_like(self.half)), (None, 1, 2)):
            share = weights[:, which].T.view(*part.shape[:2], *[1] * (part.ndim - 2))
            total += ((part if power is None else part.abs() ** power) * share).sum(0)

    def ends(self, key: Key) -> tuple[Tensor, Tensor]:
        """The least and the largest first-order change (N, *)."""
        shift, spread, square = self.sums[key]
        low, high = shift - spread, shift + spread
        if self.radius is not None:
            far = self.radius.view(-1, *[1] * (shift.ndim - 1)) * square.sqrt()
            low, high = torch.maximum(low, -far), torch.minimum(high, far)
        return low, high

    def of(self, matrix: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The same for rows of a matrix (N, D, D)."""
        self.add(_INPUT, torch.arange(matrix.shape[2], device=matrix.device), matrix.permute(2, 0, 1))
        low, high = self.ends(_INPUT)
        return low.view_as(like), high.view_as(like)


def _within(span: Span, low: Tensor, high: Tensor, slack: Tensor) -> Span:
    """The span cut to its center plus first-order changes from low to high plus its rest."""
    rest = span.rest + slack
    # Where the input can hardly move, rounding is all there is, and the center must stay inside.
    low = torch.maximum(span.low, torch.minimum(span.center + low - rest, span.center))
    high = torch.minimum(span.high, torch.maximum(span.center + high + rest, span.center))
    return Span(span.center, low, high, span.rest)


def _both(old: Span, new: Span) -> Span:
    low, high = torch.maximum(old.low, new.low), torch.minimum(old.high, new.high)
    return Span(
        old.center,
        torch.minimum(low, old.center),
        torch.maximum(high, old.center),
        torch.minimum(old.rest, new.rest),
    )


def _narrower(sweep: Sweep, first: dict[Key, tuple[Tensor, Tensor]], wide: Sweep) -> Sweep:
    """The same values and slopes once more, each cut to what it can reach; `wide` is how it all began."""

    def cut(kind: str, place: int, old: Span, new: Span) -> Span:
        span = _both(old, new)
        # The coefficients of a value's slope are how the value moves, and the other way around.
        key = ("slope" if kind == "value" else "value", place)
        if key not in first:
            return span
        began = wide.spans[place] if kind == "value" else wide.slopes[place]
        return _within(span, *first[key], _ROUNDED * began.radius)

    spans = sweep.spans[:1]
    for place, (layer, inputs) in enumerate(sweep.network.steps, start=1):
        spans.append(cut("value", place, sweep.spans[place], layer.forward(*(spans[i] for i in inputs))))
    slopes = backward(
        sweep.network, spans, sweep.seed, lambda place, span: cut("slope", place, sweep.slopes[place], span)
    )
    return Sweep(sweep.network, spans, slopes, sweep.seed, sweep.bare_seed)


def _left_out(sweep: Sweep) -> dict[Key, Tensor]:
    """What each bent layer leaves out by itself: of its output, and of the slope of its input."""
    last = len(sweep.network.steps)
    out: dict[Key, Tensor] = {("slope", last): sweep.bare_seed.rest}
    for place, (layer, inputs) in enumerate(sweep.network.steps, start=1):
        if isinstance(layer, Rectify | MaxPool) and place in sweep.slopes:
            x, slope = _bare(sweep.spans[inputs[0]]), _bare(sweep.slopes[place])
            out["value", place] = layer.forward(x).rest
            key = ("slope", inputs[0])
            back = layer.backward(slope, x)[0].rest
            out[key] = out[key] + back if key in out else back
    return out


def _bare(span: Span) -> Span:
    return Span(span.center, span.low, span.high, torch.zeros_like(span.rest))
