"""Intervals of every entry of an attribution over a ball."""

from __future__ import annotations

import torch
from torch import Tensor

from steadygrad.attributions.base import Of
from steadygrad.bounds.certified.crown import Ball
from steadygrad.bounds.certified.intervals import Interval, product, total
from steadygrad.bounds.certified.network import Network
from steadygrad.bounds.certified.propagation import propagate
from steadygrad.bounds.certified.remainder import refined_gradient
from steadygrad.bounds.path import Path

__all__ = ["gradient_intervals", "map_intervals"]


def map_intervals(
    network: Network, path: Path, ball: Ball, target: Tensor, units: int, exact: int, chunk: int
) -> tuple[Interval, Tensor | None]:
    """Intervals (N, *) of the map g = s * sum_k w_k grad F(points), for classes target (N,).

    Besides, for inputs of at most `exact` entries, sum_k w_k a_k H_k (N, D, D) with the Hessians H_k there.
    """
    slopes, hessians = [], []
    for weight, node in zip(path.weights, path.nodes):
        near = ball.between(path.baseline, node)
        slope, hessian = gradient_intervals(network, path.of, near, target, units, exact, chunk)
        slopes.append(slope)
        if hessian is not None:
            hessians.append(weight * node * hessian)
    mean = total(slopes, path.weights)
    hessian = torch.stack(hessians).sum(0) if len(hessians) == len(slopes) else None
    if not path.scaled:
        return mean, hessian
    center, low, high = (v - path.baseline for v in (ball.center, ball.low, ball.high))
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
    if ball.center[0].numel() > exact:
        return wide.slopes[0], None
    point = propagate(network, of, Ball(ball.center, ball.center, ball.center), target, 0)
    return refined_gradient(wide, of, ball, target, point.slopes[0].rest, chunk)
