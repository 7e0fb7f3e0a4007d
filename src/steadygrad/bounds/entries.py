"""Bounds of every entry of an attribution over a ball."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from steadygrad.attributions.attribution import Of
from steadygrad.bounds.carried import carried
from steadygrad.bounds.layers import Affine, Rectify
from steadygrad.bounds.network import Network, linear
from steadygrad.bounds.path import Path
from steadygrad.bounds.relaxation import Ball, forward
from steadygrad.bounds.spans import FIELDS, Span, product, total, widen
from steadygrad.bounds.sweep import Sweep, backward

__all__ = ["curved", "entries", "gradient"]


def entries(
    network: Network, path: Path, ball: Ball, target: Tensor, units: int, exact: int, chunk: int
) -> tuple[Span, Tensor | None]:
    """Spans (N, *) of the map g = s * sum_k w_k grad F(points), for classes target (N,).

    Besides, for inputs of at most `exact` entries, sum_k w_k a_k H_k (N, D, D) with the Hessians H_k there.
    """
    parts, bends = [], []
    for node in path.nodes:
        # A ball around the input becomes a smaller one around the point on the path.
        moved = [path.baseline + node * (v - path.baseline) for v in (ball.center, ball.low, ball.high)]
        slack = 4 * 2.0**-53 * (moved[0].abs() + abs(path.baseline))
        near = Ball(
            moved[0],
            moved[1] - slack,
            moved[2] + slack,
            None if ball.radius is None else node * ball.radius + slack.flatten(1).sum(1),
        )
        found = [
            gradient(network, path.of, part, labels, units, exact, chunk)
            for part, labels in _slices(near, target, chunk)
        ]
        center, low, high, rest = (torch.cat([getattr(s, f) for s, _ in found]) for f in FIELDS)
        parts.append(Span(center, low, high, rest))
        bends.append([hessian for _, hessian in found if hessian is not None])
    mean = total(parts, path.weights)
    bend = None
    if all(bends):
        bend = torch.stack([w * a * torch.cat(h) for w, a, h in zip(path.weights, path.nodes, bends)]).sum(0)
    if not path.scaled:
        return mean, bend
    zero = torch.zeros_like(ball.center)
    low, high = ball.low - path.baseline, ball.high - path.baseline
    scale = widen(Span(ball.center - path.baseline, low, high, zero), 4)
    return product(Span(scale.center, scale.low, scale.high, zero), mean), bend


def _slices(ball: Ball, target: Tensor, chunk: int) -> list[tuple[Ball, Tensor]]:
    out = []
    for first in range(0, len(target), chunk):
        some = slice(first, first + chunk)
        radius = ball.radius[some] if ball.radius is not None else None
        out.append((Ball(ball.center[some], ball.low[some], ball.high[some], radius), target[some]))
    return out


def gradient(
    network: Network, of: Of, ball: Ball, target: Tensor, units: int, exact: int = 0, chunk: int = 1
) -> tuple[Span, Tensor | None]:
    """Spans (N, *) of the gradient of the score of classes target (N,) over a ball; its Hessian, if that is taken."""
    sweep = _sweep(network, of, ball, target, units)
    if 0 not in sweep.slopes:
        zero = torch.zeros_like(ball.center)
        return Span(zero, zero, zero, zero), None
    if ball.center[0].numel() > exact:
        return sweep.slopes[0], None
    point = _sweep(network, of, Ball(ball.center, ball.center, ball.center), target, 0)
    return carried(sweep, of, ball, target, point.slopes[0].rest, chunk)


def _sweep(network: Network, of: Of, ball: Ball, target: Tensor, units: int) -> Sweep:
    last = len(network.steps)
    if of == "logit":
        spans = forward(network, ball, units)
        seed = bare = _chosen(spans[last].center, target)
    else:
        # The shares of the classes follow from differences of logits, which move less than the logits.
        compared = Network([*network.steps, (_differences(network(ball.center[:1])), (last,))])
        *spans, gaps = forward(compared, ball, units)
        seed = _seed(spans[last], gaps, target, of)
        bare = _seed(dataclasses.replace(spans[last], rest=torch.zeros_like(spans[last].rest)), gaps, target, of)
    return Sweep(network, spans, backward(network, spans, seed), seed, bare)


def _chosen(logits: Tensor, target: Tensor) -> Span:
    unit = torch.zeros_like(logits).scatter_(1, target[:, None], 1.0)
    return Span(unit, unit, unit, torch.zeros_like(unit))


def _differences(logits: Tensor) -> Affine:
    """The layer from logits (N, K) to z_j - z_k at (k, j), flat: (N, K K)."""
    unit = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
    return Affine(linear, (unit[None, :, :] - unit[:, None, :]).flatten(0, 1))


def _seed(logits: Span, gaps: Span, target: Tensor, of: Of) -> Span:
    """Spans (N, K) of the derivative of the score with respect to the logits, from their differences (N, K K)."""
    chosen = _chosen(logits.center, target)
    shares = _softmax(logits, gaps)
    away = total([chosen, _minus(shares)])
    if of == "probability":
        own = shares.map(lambda v: v.gather(1, target[:, None]).expand_as(v))
        return product(own, away)
    return away if of == "log_probability" else _minus(away)


def _minus(span: Span) -> Span:
    return Span(-span.center, -span.high, -span.low, span.rest)


def _softmax(logits: Span, gaps: Span) -> Span:
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
    slack = (64 + 8 * count + 8 * gaps.size.amax(1, keepdim=True)) * 2.0**-53
    return Span(
        center,
        least * (1 - slack) - 1e-300,
        most * (1 + slack) + 1e-300,
        rest * (1 + slack) + slack * center,
    )


def curved(network: Network) -> bool:
    """Whether the network has a second derivative in its layers."""
    return any(isinstance(layer, Rectify) and layer.beta is not None for layer, _ in network.steps)
