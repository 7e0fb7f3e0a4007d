"""Tighter intervals for the few values of each sample on which a bound loses most.

Between the lines around a curve lies what a bound gives away there, as much as the function that is bounded makes of
it. The units at which this is most, in the layer where it sums up to most, get linear bounds of their own; the layers
behind are computed again.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch
from torch import Tensor

from steadygrad.bounds.certified.ball import Ball
from steadygrad.bounds.certified.crown import largest
from steadygrad.bounds.certified.curves import Curve, Lines
from steadygrad.bounds.certified.intervals import Interval
from steadygrad.bounds.certified.network import Network


def lines_of(network: Network, intervals: list[Interval]) -> dict[int, Lines]:
    """The slopes of the lines around every curve, by the place of what it returns."""
    return {
        place: layer.lines(intervals[inputs[0]])
        for place, (layer, inputs) in enumerate(network.steps, start=1)
        if isinstance(layer, Curve)
    }


def tightened_where_it_matters(
    network: Network,
    ball: Ball,
    intervals: list[Interval],
    lines: Mapping[int, Lines],
    seen: Mapping[int, Tensor],
    count: int,
) -> list[Interval]:
    """Intervals of which up to `count` units of one layer are tightened, for each sample those that matter most to it.

    Args:
        seen: by place, what the functions that are bounded make of each unit at most, (N, *), in size.
    """
    scores = {p: _given_away(network, intervals, p, lines[p]) * seen[p] for p in _loose(network, seen)}
    scores = {p: score.flatten(1) for p, score in scores.items()}
    if not scores:
        return intervals
    places = list(scores)
    tops = [scores[p].topk(min(count, scores[p].shape[1]), 1) for p in places]
    layer = torch.stack([top.values.sum(1) for top in tops]).argmax(0)  # (N,)
    new = [Interval(*(v.clone() for v in vars(i).values())) for i in intervals]
    for i, place in enumerate(places):
        some = (layer == i).nonzero()[:, 0]
        if len(some):
            part = [interval.map(operator.itemgetter(some)) for interval in intervals]
            part = _tightened(network, ball.rows(some), part, place, tops[i].indices[some])
            for at, interval in enumerate(part):
                for old, found in zip(vars(new[at]).values(), vars(interval).values()):
                    old[some] = found
    return new


def _loose(network: Network, seen: Mapping[int, Tensor]) -> list[int]:
    """The curves behind another nonlinear layer: the input of the others is known as well as linear bounds know it."""
    behind = [False]
    for layer, inputs in network.steps:
        behind.append(layer.nonlinear or any(behind[i] for i in inputs))
    return [p for p in seen if any(behind[i] for i in network.steps[p - 1][1])]


def _given_away(network: Network, intervals: list[Interval], place: int, lines: Lines) -> Tensor:
    """How far apart the lines around a curve are in the middle, (N, *)."""
    layer, inputs = network.steps[place - 1]
    assert isinstance(layer, Curve)
    return layer.width(intervals[inputs[0]], lines)


def _tightened(network: Network, ball: Ball, intervals: list[Interval], place: int, which: Tensor) -> list[Interval]:
    """The intervals with units `which` (N, q) of what the curve of a place takes tightened, and all behind it."""
    (source,) = network.steps[place - 1][1]
    old = intervals[source]
    entries = old.center[0].numel()
    unit = torch.zeros(which.shape[1], len(which), entries, dtype=old.low.dtype, device=old.low.device)
    unit.scatter_(2, which.T[:, :, None], 1.0)
    rows = torch.cat([unit, -unit]).view(-1, *old.center.shape)
    up, down = largest(network, ball, intervals, source, rows).chunk(2)  # (q, N)
    low, high = old.low.flatten(1), old.high.flatten(1)
    low, high = low.scatter_reduce(1, which, -down.T, "amax"), high.scatter_reduce(1, which, up.T, "amin")
    narrow = [*intervals]
    narrow[source] = old.cut(low.view_as(old.low), high.view_as(old.high))
    for at in range(source + 1, len(intervals)):
        layer, inputs = network.steps[at - 1]
        found = layer.forward(*(narrow[i] for i in inputs))
        narrow[at] = intervals[at].cut(found.low, found.high)
    return narrow
