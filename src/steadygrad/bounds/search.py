"""Allowed inputs that move an attribution far: what a certified bound is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from steadygrad.attributions.attribution import Attribution, Forward
from steadygrad.bounds.result import Distance, deviation
from steadygrad.threat import Threat

__all__ = ["farthest"]


def farthest(
    attribution: Attribution,
    judge: Forward,
    guide: Forward,
    x: Tensor,
    target: Tensor,
    threat: Threat,
    distance: Distance,
    seeds: Tensor,
    *,
    starts: list[Tensor],
    steps: int,
    restarts: int,
) -> tuple[Tensor, Tensor, int]:
    """The best allowed points (N, *) found, how far (N,) they move the maps of `judge`, and the maps taken.

    Ascends the deviation of the maps of `guide`, which has curvature, by signed or normalized steps that
    halve, from the given points and from random ones. Every point is measured on `judge`.
    """
    before = attribution.maps(judge, x, target, create_graph=False)
    origin = before if judge is guide else attribution.maps(guide, x, target, create_graph=False)
    best, far = x, torch.zeros(len(x), dtype=torch.float64, device=x.device)
    taken = 1

    def look(points: Tensor) -> None:
        nonlocal best, far, taken
        moved = deviation(distance, before, attribution.maps(judge, points, target, create_graph=False))
        better = moved > far
        best = torch.where(better.view(-1, *[1] * (x.ndim - 1)), points, best)
        far = torch.maximum(far, moved)
        taken += 1

    eps = threat.radius(x).view(-1, *[1] * (x.ndim - 1))
    for start in [*starts, *(threat.random(x, seeds, draw) for draw in range(restarts))]:
        points = start
        look(points)
        for step in range(steps):
            with torch.enable_grad():
                leaf = points.detach().requires_grad_()
                maps = attribution.maps(guide, leaf, target, create_graph=True)
                loss = _loss(distance, origin, maps)
                slope = torch.autograd.grad(loss.sum(), leaf, allow_unused=True)[0] if loss.requires_grad else None
            taken += 2
            if slope is None:
                break
            # Long steps reach the corners, where a convex deviation is largest; later ones settle.
            way = threat.steepest(torch.nan_to_num(slope)) * eps * 2.0 ** (1 - step // 2)
            points = threat.constrain(x, points + way)
            look(points)
    return best, far, taken


def _loss(distance: Distance, before: Tensor, after: Tensor) -> Tensor:
    a, b = before.flatten(1), after.flatten(1)
    if distance == "euclidean":
        return (a - b).square().sum(1)
    return -torch.nn.functional.cosine_similarity(a, b, dim=1, eps=1e-30)
