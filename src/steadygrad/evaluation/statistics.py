"""Estimates with their intervals: shares, means, quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steadygrad.errors import UsageError

__all__ = [
    "Estimate",
    "critical_count",
    "difference",
    "mean",
    "quantile_intervals",
    "quantiles",
    "ratio_values",
    "share_of",
    "wilson",
]

_Z = 1.959963984540054  # 97.5 % point of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the number of samples behind it.

    >>> print(wilson(41, 100))
    41.0 % [31.9, 50.8]
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def plain(self) -> dict[str, Any]:
        """The estimate as plain data for `summary.json`."""
        return {"value": self.value, "low": self.low, "high": self.high, "count": self.count}


def wilson(successes: int, count: int) -> Estimate:
    """A share with its Wilson score interval (Wilson 1927), which stays within [0, 1].

    Raises:
        UsageError: no samples, or more successes than samples.

    >>> wilson(0, 10).high > 0
    True
    """
    if count < 1 or not 0 <= successes <= count:
        raise UsageError(f"a share needs 0 <= successes <= count and a count of at least 1, got {successes} of {count}")
    share, square = successes / count, _Z * _Z
    center = (share + square / (2 * count)) / (1 + square / count)
    half = _Z / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    return Estimate(share, min(share, max(0.0, center - half)), max(share, min(1.0, center + half)), count)


def share_of(hits: ArrayLike) -> Estimate:
    """The share of True among hits (N,), with its Wilson interval.

    >>> print(share_of([True, False]))
    50.0 % [9.5, 90.5]
    """
    return wilson(int(np.sum(hits)), len(np.asarray(hits)))


def mean(values: ArrayLike) -> Estimate:
    """A mean over samples with its 95 % interval by Student's t (a single sample has no width to show)."""
    from scipy.stats import t

    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise UsageError(f"a mean needs finite values, got {array.size} values")
    center = float(array.mean())
    if array.size == 1:
        return Estimate(center, center, center, 1)
    half = float(t.ppf(0.975, array.size - 1) * array.std(ddof=1) / math.sqrt(array.size))
    return Estimate(center, center - half, center + half, array.size)


def difference(first: ArrayLike, second: ArrayLike) -> Estimate:
    """The mean difference of two measurements of the same samples, (N,) each, with its interval by Student's t.

    Where all differences are equal that interval has no width: it is then as wide as for a share of 0 of N.

    >>> difference([1, 1, 0, 1], [0, 1, 0, 0]).value
    0.5
    >>> difference([True] * 10, [True] * 10).high > 0.2
    True
    """
    values = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    found = mean(values)
    least = wilson(0, found.count).high if values.std() == 0 else 0.0
    return Estimate(found.value, min(found.low, found.value - least), max(found.high, found.value + least), found.count)


def ratio_values(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values (N,) whose mean is the ratio of two means over the same samples, and whose spread is its linearization's.

    >>> ratio_values(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    array([0.5, 1.5])
    """
    ratio = first.mean() / second.mean()
    values: NDArray[np.float64] = ratio + (first - ratio * second) / second.mean()
    return values


def quantiles(values: ArrayLike, at: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> dict[str, float | None]:
    """Quantiles by level; infinite values count as censored, and a quantile among them is None.

    >>> quantiles([1.0, 2.0, float("inf")], at=(0.5, 0.9))
    {'0.5': 2.0, '0.9': None}
    """
    array = np.sort(np.asarray(values, dtype=np.float64))
    if array.size == 0:
        return {str(q): None for q in at}
    # The empirical quantile is always one of the values: nothing is interpolated with infinity.
    # 0.07 * 100 is above 7 in floating point and must not slip to the eighth value.
    places = [max(0, math.ceil(q * array.size - 1e-9) - 1) for q in at]
    picked = [float(array[min(array.size - 1, place)]) for place in places]
    return {str(q): (v if math.isfinite(v) else None) for q, v in zip(at, picked, strict=True)}


def quantile_intervals(
    values: ArrayLike, at: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)
) -> dict[str, dict[str, float | None]]:
    """Quantiles of distances as in `quantiles`, each with its 95 % interval from order statistics.

    The ends are the values at the ranks between which the quantile lies with 95 % probability,
    whatever the distribution (Conover 1999, section 3.2). None stands for a value among the censored
    ones, and for an upper end for which there are too few samples; a missing lower end is 0.

    >>> quantile_intervals(range(1, 101), at=(0.5,))
    {'0.5': {'value': 50.0, 'low': 40.0, 'high': 61.0}}
    """
    from scipy.stats import binom

    array = np.sort(np.asarray(values, dtype=np.float64))
    middle = quantiles(array, at)
    found: dict[str, dict[str, float | None]] = {}
    for q in at:
        # P(value at rank r <= quantile) is that of at least r of the samples lying below it.
        low, high = int(binom.ppf(0.025, array.size, q)), int(binom.ppf(0.975, array.size, q)) + 1
        ends = [0.0 if low < 1 else array[low - 1], array[high - 1] if 0 < high <= array.size else math.inf]
        lower, upper = (float(e) if math.isfinite(e) else None for e in ends)
        found[str(q)] = {"value": middle[str(q)], "low": lower, "high": upper}
    return found


def critical_count(count: int, share: float, level: float = 0.01) -> int:
    """The number of samples, of `count`, from which a share is shown to exceed `share`.

    Exact one-sided binomial test: were the true share at most `share`, so many would be seen with a
    probability below `level`. Above `count` where the samples are too few to show anything.

    >>> critical_count(300, 0.01), critical_count(100, 0.05)
    (9, 12)
    """
    from scipy.stats import binom

    # The smallest k with P(at least k) < level.
    k = int(binom.isf(level, count, share)) + 1
    while k > 0 and binom.sf(k - 2, count, share) < level:
        k -= 1
    while binom.sf(k - 1, count, share) >= level:
        k += 1
    return k
