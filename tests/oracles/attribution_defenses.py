"""Losses of the attribution defenses, sample by sample, with derivatives from differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from oracles import differences
from oracles.defenses import log_probabilities

Model = Callable[[Tensor], Tensor]


def cross_entropy(model: Model, point: Tensor, label: int) -> float:
    """Of one input (1, *)."""
    return -log_probabilities(model(point).detach()[0])[label]


def path_norm(model: Model, x: Tensor, end: Tensor, label: int, points: int = 60) -> float:
    """l1 norm of the integrated gradients of the cross-entropy from x to end (1, *), by a midpoint sum."""
    total = torch.zeros_like(x)
    for i in range(points):
        place = x + (i + 0.5) / points * (end - x)
        total += differences.gradient(
            lambda p: torch.tensor([-log_probabilities(row)[label] for row in model(p).detach()], dtype=p.dtype), place
        )
    return float(((end - x) * total / points).abs().sum())


def cosine(a: Tensor, b: Tensor) -> float:
    """Of the angle between two arrays."""
    p, q = a.flatten().tolist(), b.flatten().tolist()
    return sum(u * v for u, v in zip(p, q)) / math.sqrt(sum(u * u for u in p) * sum(v * v for v in q))


def logit_gradient(model: Model, point: Tensor, label: int) -> Tensor:
    """Of one logit at one input (1, *)."""
    return differences.gradient(lambda p: model(p).detach()[:, label], point)


def triplet(model: Model, point: Tensor, label: int) -> float:
    """log(1 + exp(-(d(g_i, x) - d(g_y, x)))) with d = 1 - cosine and i the largest other logit."""
    logits = model(point).detach()[0].tolist()
    other = max((k for k in range(len(logits)) if k != label), key=lambda k: logits[k])
    far, near = (1 - cosine(logit_gradient(model, point, k), point) for k in (other, label))
    return math.log(1 + math.exp(-(far - near)))
