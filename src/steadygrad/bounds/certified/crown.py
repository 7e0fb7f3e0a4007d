"""Bounds of every value in a network over a ball: interval arithmetic, tightened by linear functions.

Interval arithmetic forgets that the values of a layer depend on the same input. A linear function of a
layer's values is taken back to the input instead, each rectifier replaced by lines above and below it,
and only there is its extreme taken.

Source: Zhang et al. 2018, arXiv:1811.00866 (CROWN).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from steadygrad.bounds.certified.ball import Ball
from steadygrad.bounds.certified.curves import Curve, Lines
from steadygrad.bounds.certified.intervals import Interval
from steadygrad.bounds.certified.network import Network

_ENTRIES = 2**22  # of the linear functions that are taken back at once


def value_intervals(network: Network, ball: Ball, units: int) -> list[Interval]:
    """Intervals of the input, of every layer and of the logits.

    What a nonlinear layer takes is tightened if it has at most `units` entries; in l2 and l1 all values are, by how far
    each layer carries a change of that length.
    """
    tightened = {i for layer, inputs in network.steps if layer.nonlinear for i in inputs} | {len(network.steps)}
    intervals = [ball.interval]
    moves = [ball.radius]  # of each value in l2, which is never longer than in l1
    for place, (layer, inputs) in enumerate(network.steps, start=1):
        taken = [intervals[i] for i in inputs]
        found = layer.forward(*taken)
        if ball.radius is not None:
            whole, entries = layer.moved([cast(Tensor, moves[i]) for i in inputs], *taken)
            entries = (entries + 2.0**-40 * entries.amax()) * (1 + 2.0**-40)
            found = found.cut(found.center - entries, found.center + entries)
            # As far as its entries move together, if that is less.
            moves.append(torch.minimum(whole, torch.linalg.vector_norm(found.radius.flatten(1), dim=1)))
        if place in tightened and found.center[0].numel() <= units:
            found = _tightened(network, ball, [*intervals, found], place)
        intervals.append(found)
    return intervals


def _tightened(network: Network, ball: Ball, intervals: list[Interval], place: int) -> Interval:
    interval, shape = intervals[place], intervals[place].center.shape
    low, high = interval.low.flatten(1).clone(), interval.high.flatten(1).clone()
    entries = low.shape[1]
    widest = max(s.center[0].numel() for s in intervals[: place + 1])
    share = max(1, _ENTRIES // (2 * len(low) * widest))
    for first in range(0, entries, share):
        which = torch.arange(first, min(first + share, entries), device=low.device)
        unit = torch.zeros(len(which), entries, dtype=low.dtype, device=low.device)
        unit[torch.arange(len(which)), which] = 1
        rows = torch.cat([unit, -unit])[:, None].expand(-1, len(low), -1).reshape(-1, *shape)
        up, down = largest(network, ball, intervals, place, rows).chunk(2)  # (R, N)
        high[:, which] = torch.minimum(high[:, which], up.T)
        low[:, which] = torch.maximum(low[:, which], -down.T)
    return Interval(interval.center, low.view(shape), torch.maximum(high, low).view(shape), interval.rest)


def largest(
    network: Network,
    ball: Ball,
    intervals: list[Interval],
    place: int,
    rows: Tensor,
    lines: Mapping[int, Lines] | None = None,
    seen: dict[int, Tensor] | None = None,
) -> Tensor:
    """At least the largest values (R, N) of linear functions (R, N, *) of the value at a place.

    Args:
        lines: slopes of the lines around the curves of some layers, by the place of what they return.
        seen: takes for every curve the largest size (N, *) with which it enters a function, by its place.
    """
    functions = {place: rows}
    constant = torch.zeros(rows.shape[:2], dtype=rows.dtype, device=rows.device)
    for at in range(place, 0, -1):
        if at not in functions:
            continue
        layer, inputs = network.steps[at - 1]
        taken = [intervals[i] for i in inputs]
        if isinstance(layer, Curve):
            if seen is not None:
                seen[at] = functions[at].abs().amax(0)
            new, more = layer.above(functions.pop(at), *taken, lines=(lines or {}).get(at))
        else:
            new, more = layer.above(functions.pop(at), *taken)
        constant = constant + more * (1 + 2.0**-50)
        for i, function in zip(inputs, new):
            functions[i] = functions[i] + function if i in functions else function
    if 0 not in functions:  # the value does not depend on the input
        return constant
    best: Tensor = constant + ball.largest(functions[0])
    return best + 2.0**-48 * constant.abs()
