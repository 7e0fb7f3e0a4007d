"""Intervals of all values of a network over a ball, forwards, and of all slopes of a score, backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from steadygrad.attributions.attribution import Of
from steadygrad.bounds.certified.ball import Ball
from steadygrad.bounds.certified.crown import value_intervals
from steadygrad.bounds.certified.intervals import TINY, UNIT, Interval, product, total
from steadygrad.bounds.certified.layers import Affine
from steadygrad.bounds.certified.network import Network


@dataclass(frozen=True)
class Propagation:
    """Intervals of the values of a network (by place) and of the slopes of a score with respect to them."""

    network: Network
    values: list[Interval]
    slopes: dict[int, Interval]
    logit_slope: Interval
    exact_logit_slope: Interval  # the same as if the logits followed their first-order change


def propagate(network: Network, of: Of, ball: Ball, target: Tensor, units: int) -> Propagation:
    """Values over a ball, and slopes of the score of classes target (N,).

    Linear bounds tighten the values of layers of at most `units` entries.
    """
    last = len(network.steps)
    if of == "logit":
        values = value_intervals(network, ball, units)
        slope = exact = _chosen(values[last].center, target)
    else:
        # The shares of the classes follow from differences of logits, which move less than the logits.
        compared = Network([*network.steps, (_differences(network(ball.center[:1])), (last,))])
        *values, gaps = value_intervals(compared, ball, units)
        slope, exact = (_score_slope(z, gaps, target, of) for z in (values[last], values[last].exact()))
    return Propagation(network, values, slope_intervals(network, values, slope), slope, exact)


def slope_intervals(
    network: Network,
    values: list[Interval],
    logit_slope: Interval,
    narrow: Callable[[int, Interval], Interval] = lambda _, slope: slope,
) -> dict[int, Interval]:
    """Slopes by place, from those of the logits; each is narrowed before it goes on to the layer's inputs."""
    last = len(network.steps)
    waiting: dict[int, list[Interval]] = {last: [logit_slope]}
    slopes: dict[int, Interval] = {}
    for place in range(last, -1, -1):
        got = waiting.pop(place, None)
        if got is None:
            continue
        slopes[place] = narrow(place, got[0] if len(got) == 1 else total(got))
        if place:
            layer, inputs = network.steps[place - 1]
            for i, back in zip(inputs, layer.backward(slopes[place], *(values[i] for i in inputs))):
                waiting.setdefault(i, []).append(back)
    return slopes


def _chosen(logits: Tensor, target: Tensor) -> Interval:
    unit = torch.zeros_like(logits).scatter_(1, target[:, None], 1.0)
    return Interval(unit, unit, unit, torch.zeros_like(unit))


def _differences(logits: Tensor) -> Affine:
    """The layer from logits (N, K) to z_j - z_k at (k, j), flat: (N, K K)."""
    unit = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
    return Affine(linear, (unit[None, :, :] - unit[:, None, :]).flatten(0, 1))


def _score_slope(logits: Interval, gaps: Interval, target: Tensor, of: Of) -> Interval:
    """The derivative (N, K) of the score with respect to the logits, from their differences (N, K K)."""
    shares = _softmax(logits, gaps)
    away = total([_chosen(logits.center, target), -shares])
    if of == "probability":
        return product(shares.map(lambda v: v.gather(1, target[:, None]).expand_as(v)), away)
    return away if of == "log_probability" else -away


def _softmax(logits: Interval, gaps: Interval) -> Interval:
    """p_k = 1 / sum_j exp(z_j - z_k): least where all differences are largest."""
    count = logits.center.shape[1]
    low, high = (v.view(-1, count, count) for v in (gaps.low, gaps.high))
    same = torch.eye(count, dtype=torch.bool, device=low.device)
    least, most = (torch.exp(-torch.where(same, 0.0, v).logsumexp(2)) for v in (high, low))
    center = logits.center.softmax(1)
    # d^2 p_k along a change D of the logits is p_k ((D_k - m)^2 - var): at most p_k times the squared range of D.
    reach = gaps.radius.amax(1, keepdim=True)
    rest = center * (logits.rest + (center * logits.rest).sum(1, keepdim=True)) + 0.5 * most * reach.square()
    # exp(-gap) is off by as many units as the gap is large, in relative terms.
    slack = (64 + 8 * count + 8 * gaps.size.amax(1, keepdim=True)) * UNIT
    return Interval(center, least * (1 - slack) - TINY, most * (1 + slack) + TINY, rest * (1 + slack) + slack * center)
