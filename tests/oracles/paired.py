"""Paired intervals from their definitions: by likelihoods and counting, without closed forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from scipy.optimize import brentq
from scipy.stats import norm


def _likely_losses(difference: float, gained: int, lost: int, count: int) -> float:
    """The share of losses that maximizes the likelihood, if gains exceed losses by this share."""
    low, high = max(0.0, -difference), (1 - difference) / 2
    same = count - gained - lost

    def slope(q: float) -> float:
        value = -2 * same / (1 - 2 * q - difference)
        value += gained / (q + difference) if gained else 0.0
        return value + (lost / q if lost else 0.0)

    tiny = 1e-13 * max(high - low, 1e-3)
    if high - low <= 2 * tiny or slope(low + tiny) <= 0:
        return low
    return high if slope(high - tiny) >= 0 else float(brentq(slope, low + tiny, high - tiny, xtol=1e-15))


def statistic(difference: float, gained: int, lost: int, count: int) -> float:
    """The score statistic of one difference of paired shares: excess over its standard error."""
    q = _likely_losses(difference, gained, lost, count)
    excess = (gained - lost) / count - difference
    return excess / math.sqrt((2 * q + difference - difference**2) / count)


def score_interval(gained: int, lost: int, count: int) -> tuple[float, float]:
    """The differences that the score test just does not reject at 5 %."""
    value, z = (gained - lost) / count, norm.ppf(0.975)
    edge = 1 - 1e-9

    def end(sign: int) -> float:
        def excess(difference: float) -> float:
            return statistic(difference, gained, lost, count) - sign * z

        inner = value - sign * 1e-9
        if abs(inner) > edge:
            return value
        return float(brentq(excess, -edge * sign, inner, xtol=1e-14))

    return end(1), end(-1)


def sign_interval(values: Sequence[float]) -> tuple[float, float]:
    """The medians that the exact sign test does not reject at 5 %: from one of the values to another.

    Rank r is an end if fewer than r of n fair coins show heads with a chance of at most 2.5 %.
    """
    ordered, n = sorted(values), len(values)
    chance, rank = Fraction(0), 0
    while chance + Fraction(math.comb(n, rank), 2**n) <= Fraction(1, 40):
        chance += Fraction(math.comb(n, rank), 2**n)
        rank += 1
    return (ordered[rank - 1], ordered[n - rank]) if rank else (-math.inf, math.inf)


def uneven(gained: int, lost: int) -> float:
    """The chance that fair coins split as unevenly as this, or more so."""
    n, k = gained + lost, min(gained, lost)
    tail = Fraction(sum(math.comb(n, i) for i in range(k + 1)), 2**n)
    return float(min(Fraction(1), 2 * tail))
