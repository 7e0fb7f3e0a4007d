"""Intervals and quantiles from their definitions, slowly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from scipy.optimize import brentq
from scipy.stats import norm


def score_interval(successes: int, count: int) -> tuple[float, float]:
    """The shares p at which the score test |share - p| = z sqrt(p (1 - p) / n) just does not reject."""
    share, z = successes / count, norm.ppf(0.975)

    def excess(p: float) -> float:
        return (share - p) ** 2 - z * z * p * (1 - p) / count

    tiny = 1e-15
    low = 0.0 if successes == 0 else brentq(excess, 0.0, share - tiny, xtol=1e-15)
    high = 1.0 if successes == count else brentq(excess, share + tiny, 1.0, xtol=1e-15)
    return low, high


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's interval by its closed form (Wilson 1927)."""
    share, square = successes / count, norm.ppf(0.975) ** 2
    center = (share + square / (2 * count)) / (1 + square / count)
    half = math.sqrt(square * (share * (1 - share) / count + square / (4 * count * count))) / (1 + square / count)
    return center - half, center + half


def quantile(values: Sequence[float], level: Fraction) -> float:
    """The smallest value with at least this share of all values at or below it."""
    ordered = sorted(values)
    return next(v for i, v in enumerate(ordered, 1) if Fraction(i, len(ordered)) >= level)


def student_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t, in exact sums."""
    from scipy.stats import t

    n = len(values)
    center = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((v - center) ** 2 for v in values) / (n - 1))
    half = t.isf(0.025, n - 1) * deviation / math.sqrt(n)
    return center, center - half, center + half
