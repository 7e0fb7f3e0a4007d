"""The worst deviation of an attribution, for every point of the ball."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.attributions.attribution import Attribution
from steadygrad.bounds import signs
from steadygrad.bounds.entries import curved, entries
from steadygrad.bounds.linearised import Effort, Moves, allowed_box
from steadygrad.bounds.path import path_of
from steadygrad.bounds.reading import read
from steadygrad.bounds.relaxation import Ball
from steadygrad.bounds.result import DeviationBound, Distance, cosine_bound
from steadygrad.bounds.search import farthest
from steadygrad.bounds.signs import Form
from steadygrad.bounds.spans import Span
from steadygrad.bounds.tangent import Tangent
from steadygrad.classifier import frozen
from steadygrad.derivatives import math_attention
from steadygrad.threat import Threat

__all__ = ["certified"]

_GUIDE = 50.0  # beta of the smoothed network that leads the search where there is no curvature


def certified(
    model: nn.Module,
    attribution: Attribution,
    x: Tensor,
    target: Tensor,
    threat: Threat,
    distance: Distance,
    seeds: Tensor,
    effort: Effort,
) -> DeviationBound:
    """The certified bound of a batch x (N, *) with classes target (N,); see `AttributionDeviation`.

    The smaller of two: the length of the largest change of every entry, and, where the exact Jacobian is
    affordable, the largest first-order change plus the length of a bound on all that it leaves out.
    """
    path = path_of(attribution)
    with frozen(model), math_attention():
        network = read(model, x)
        guide = network if curved(network) else read(model, x, beta=_GUIDE)
        inputs, ball, threat = _ball(x, threat)
        span, bend = entries(network, path, ball, target, effort.units, effort.exact, effort.chunk)
        starts: list[Tensor] = []
        linear: Tensor | None = None
        forwards = backwards = torch.zeros_like(target)
        if bend is not None:
            tangent = Tangent(network, path, inputs, target, effort.chunk, bend)
            moves = Moves(tangent, threat, None)
            linear, change, span = _first_order(moves, span, seeds, effort)
            # Twice one backward for every entry of the input.
            backwards = torch.full_like(target, 2 * len(path.nodes) * x[0].numel())
            starts = [threat.constrain(inputs, inputs + sign * change.view_as(inputs)) for sign in (1, -1)]
        points, far, taken = farthest(
            attribution,
            network,
            guide,
            inputs,
            target,
            threat,
            distance,
            seeds,
            starts=starts,
            steps=effort.steps,
            restarts=max(1, effort.restarts // 4),
        )
    change = torch.maximum(span.high - span.center, span.center - span.low).clamp_min(0).flatten(1)
    upper = torch.linalg.vector_norm(change, dim=1)
    if linear is not None:
        upper = torch.minimum(upper, linear)
    upper = upper * (1 + 1e-9)
    if distance == "cosine":
        norm = torch.linalg.vector_norm(span.center.flatten(1), dim=1)
        upper = cosine_bound(norm, upper, upper, upper)
    nodes = len(path.nodes)
    return DeviationBound(
        upper=upper,
        lower=far,
        attack=far,
        inputs=points.to(x.dtype),
        kind="certified",
        distance=distance,
        residual=torch.zeros_like(upper),
        low=span.low,
        high=span.high,
        forwards=forwards + nodes * (1 + taken),
        backwards=backwards + nodes * (1 + taken),
    )


def _ball(x: Tensor, threat: Threat) -> tuple[Tensor, Ball, Threat]:
    """The inputs in float64, and a ball that also holds what rounding in the type of the inputs lets in."""
    inputs = x.double()
    low, high = allowed_box(inputs, threat)
    ulp = 2 * torch.finfo(x.dtype).eps if x.dtype != torch.float64 else 2.0**-50
    most = torch.maximum(inputs.abs(), torch.maximum(low.abs(), high.abs()))
    slack = ulp * most.flatten(1).amax(1)
    place = slack.view(-1, *[1] * (x.ndim - 1))
    radius = None
    if threat.norm == "l2":
        radius = threat.radius(inputs) * (1 + ulp) + slack * math.sqrt(x[0].numel())
    return inputs, Ball(inputs, low - place, high + place, radius), threat


def _first_order(moves: Moves, span: Span, seeds: Tensor, effort: Effort) -> tuple[Tensor, Tensor, Span]:
    """A bound (N,) from the Jacobian and the rest, a change (N, D) that comes close to it, a narrower span."""
    matrix = moves.matrix()  # (N, D, columns)
    radius = span.radius.flatten(1)
    rest = span.rest.flatten(1) + 1e-9 * radius  # the rounding of the Jacobian is far below this share
    form = Form(matrix)
    if moves.threat.norm == "l2":
        _, values, right = torch.linalg.svd(matrix, full_matrices=False)
        largest, best = values[:, 0], right[:, 0]
        across = torch.linalg.vector_norm(matrix, dim=2)
        shift = torch.zeros_like(across)
    else:
        like = matrix[:, :1, :1].expand(-1, effort.restarts, matrix.shape[2])
        largest, vectors = signs.relax(form, randomness.normal(seeds, like, draw=2))
        noise = randomness.normal(seeds, like[:, :, :1].expand(-1, -1, effort.restarts), draw=3)
        best = signs.ascend(form, noise @ vectors)
        best = best * best[:, -1:]
        across, shift = matrix[:, :, :-1].abs().sum(2), matrix[:, :, -1]
    center = span.center.flatten(1)
    low, high = center + shift - across - rest, center + shift + across + rest
    # The same claim by two ways; where the input can hardly move, rounding is all there is.
    low = torch.maximum(span.low.flatten(1), torch.minimum(low, center))
    high = torch.minimum(span.high.flatten(1), torch.maximum(high, center))
    narrower = Span(span.center, low.view_as(span.low), high.view_as(span.high), span.rest)
    return largest + torch.linalg.vector_norm(rest, dim=1), moves.change(best), narrower
