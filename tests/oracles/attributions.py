"""Attributions from values alone: one sample at a time, gradients by differences, sums by loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from oracles import differences
from steadygrad import randomness


def score(logits: Tensor, target: int, of: str) -> Tensor:
    """(N,) from logits (N, K), written out."""
    z = logits[:, target]
    if of == "logit":
        return z
    probability = torch.exp(z) / torch.exp(logits).sum(1)
    if of == "probability":
        return probability
    if of == "log_odds":
        return torch.log(probability / (1 - probability))
    return torch.log(probability) if of == "log_probability" else -torch.log(probability)


def _per_sample(x: Tensor, target: Tensor, one: Callable[[Tensor, int], Tensor]) -> Tensor:
    return torch.cat([one(x[n : n + 1], int(target[n])) for n in range(len(x))])


def saliency(model: Callable[[Tensor], Tensor], x: Tensor, target: Tensor, of: str = "logit") -> Tensor:
    """dF_t/dx by central differences."""
    return _per_sample(x, target, lambda p, t: differences.gradient(lambda q: score(model(q), t, of), p))


def input_x_gradient(model: Callable[[Tensor], Tensor], x: Tensor, target: Tensor, of: str = "logit") -> Tensor:
    """x dF_t/dx."""
    return x * saliency(model, x, target, of)


def integrated_gradients(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    target: Tensor,
    of: str = "logit",
    baseline: float = 0.0,
    points: int = 400,
) -> Tensor:
    """(x - b) times the Riemann sum, by midpoints, of the gradients on the line from b to x."""

    def one(p: Tensor, t: int) -> Tensor:
        total = torch.zeros_like(p)
        for i in range(points):
            place = baseline + (i + 0.5) / points * (p - baseline)
            total += differences.gradient(lambda q: score(model(q), t, of), place)
        return (p - baseline) * total / points

    return _per_sample(x, target, one)


def smooth_grad(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    target: Tensor,
    of: str = "logit",
    samples: int = 32,
    sigma: float = 0.1,
    seed: int = 0,
    antithetic: bool = False,
) -> Tensor:
    """The mean over a loop of gradients at x plus noise."""

    def one(p: Tensor, t: int) -> Tensor:
        total = torch.zeros_like(p)
        for j in range(samples):
            draw = j // 2 if antithetic else j
            noise = randomness.normal(torch.tensor([seed]), p, draw)
            place = p - sigma * noise if antithetic and j % 2 else p + sigma * noise
            total += differences.gradient(lambda q: score(model(q), t, of), place)
        return total / samples

    return _per_sample(x, target, one)


def tau_b(a: list[float], b: list[float]) -> float:
    """Kendall's tau-b by looking at every pair (Kendall 1945)."""
    concordant = discordant = tied_a = tied_b = 0
    for i in range(len(a)):
        for j in range(i):
            da, db = a[i] - a[j], b[i] - b[j]
            tied_a += da == 0
            tied_b += db == 0
            concordant += da * db > 0
            discordant += da * db < 0
    pairs = len(a) * (len(a) - 1) // 2
    return (concordant - discordant) / math.sqrt((pairs - tied_a) * (pairs - tied_b))


def average_ranks(values: list[float]) -> list[float]:
    """1 + the number of smaller values + half the number of other equal ones."""
    return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def rank_correlation(a: list[float], b: list[float]) -> float:
    """Spearman's rho: Pearson's correlation of the average ranks."""
    p, q = average_ranks(a), average_ranks(b)
    mean = (len(a) + 1) / 2
    above = sum((u - mean) * (v - mean) for u, v in zip(p, q))
    return above / math.sqrt(sum((u - mean) ** 2 for u in p) * sum((v - mean) ** 2 for v in q))


def top_k_common(a: list[float], b: list[float], count: int) -> float:
    """Share of the `count` largest entries in common, lower index first among equals."""

    def top(values: list[float]) -> set[int]:
        return set(sorted(range(len(values)), key=lambda i: (-values[i], i))[:count])

    return len(top(a) & top(b)) / count
