"""Randomized smoothing from its formulas, in plain Python: bisection in the place of quantiles, a loop over draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def tail(hits: int, count: int, share: float) -> float:
    """The probability of at least so many hits among `count` draws of which each hits with a probability."""
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + k * math.log(share) + (count - k) * math.log1p(-share)
        for k in range(hits, count + 1)
    ]  # fmt: skip
    return math.fsum(map(math.exp, logs))


def _root(rises_above: float, function) -> float:
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) > rises_above else (middle, high)
    return low


def lower_bound(hits: int, count: int, alpha: float) -> float:
    """Clopper and Pearson: the share under which so many hits, or more, have the probability alpha."""
    return 0.0 if hits == 0 else _root(alpha, lambda share: tail(hits, count, share) if 0 < share < 1 else share)


def normal_cdf(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2))


def normal_quantile(share: float) -> float:
    low, high = -40.0, 40.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if normal_cdf(middle) > share else (middle, high)
    return low


def radius(hits: int, count: int, alpha: float, sigma: float) -> float:
    """The certified radius; 0 for an abstention."""
    share = lower_bound(hits, count, alpha)
    return sigma * normal_quantile(share) if share > 0.5 else 0.0


def overshoot(count: int, alpha: float, share: float) -> float:
    """The exact probability that the lower bound exceeds the true share."""
    found = 0.0
    for hits in range(count + 1):
        if lower_bound(hits, count, alpha) > share:
            found += tail(hits, count, share) - (tail(hits + 1, count, share) if hits < count else 0.0)
    return found


def soft_vote(model: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    """Logarithms (N, K) of the mean probabilities over noise (D, *), the same for all inputs (N, *)."""
    rows = [sum(model(one[None] + shift).softmax(1) for shift in noise) / len(noise) for one in x]
    return torch.cat(rows).log()
