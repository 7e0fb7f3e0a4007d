"""Differences, ratios and correlations of two measurements of the same samples, with intervals that use the pairing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadygrad.arguments import arithmetic
from steadygrad.errors import UsageError
from steadygrad.kinds import Numbers
from steadygrad.measuring.statistics import Estimate, bootstrap, mean, wilson

_Z = 1.959963984540054  # 97.5 % point of the normal distribution
_LEVEL = 0.05
_LEAST = 1e-12  # of a denominator

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PairedDifference(Estimate):
    """After minus before on the same samples, with its 95 % interval; infinite ends are censored ones.

    `gained` and `lost` count the samples that moved up and down; `p` is the exact two-sided
    probability of so uneven a split if both were as likely (McNemar's test, the sign test).
    """

    gained: int
    lost: int
    p: float

    @property
    def direction(self) -> int:
        """1 or -1 where the interval leaves out zero and the exact test agrees, else 0: nothing is shown."""
        if self.p >= _LEVEL or self.includes_zero:
            return 0
        return 1 if self.low > 0 else -1


@arithmetic
def mean_difference(first: Numbers, second: Numbers) -> Estimate:
    """The mean of first minus second, (N,) each, with its interval by Student's t.

    Where all differences are equal that interval has no width: it is then as wide as for a share of 0 of N.

    >>> mean_difference([1, 1, 0, 1], [0, 1, 0, 0]).value
    0.5
    >>> mean_difference([True] * 10, [True] * 10).high > 0.2
    True
    """
    values = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    found = mean(values)
    least = wilson(0, found.count).high if values.std() == 0 else 0.0
    return Estimate(found.value, min(found.low, found.value - least), max(found.high, found.value + least))


@arithmetic
def difference_of_shares(before: Numbers, after: Numbers) -> PairedDifference:
    """Share of True after minus share before, both (N,) bool on the same samples, with Tango's score interval.

    The interval holds the differences that the score test at 5 % does not reject, with the other
    shares at their most likely values (Tango 1998, Statistics in Medicine 17:891). It leaves out
    zero exactly where McNemar's test rejects.

    Raises:
        UsageError: no samples, or not equally many.

    >>> found = difference_of_shares([True] * 10 + [False] * 90, [True] * 30 + [False] * 70)
    >>> round(found.value, 2), found.gained, found.lost, found.direction
    (0.2, 20, 0, 1)
    """
    from scipy.optimize import brentq

    first, second = _pair(before, after, np.bool_)
    count, gained, lost = len(first), int((~first & second).sum()), int((first & ~second).sum())
    value = (gained - lost) / count

    def end(edge: float) -> float:
        """Where the score, which falls from one edge to the other, passes the normal point on this side."""
        if value == edge:
            return edge
        arguments = (gained, lost, count, -edge * _Z)
        return float(brentq(_excess, *sorted((edge, value)), arguments, xtol=1e-15))

    p = _sign_test(gained, lost)
    return PairedDifference(value, end(-1.0), end(1.0), count, gained=gained, lost=lost, p=p)


@arithmetic
def median_shift(before: Numbers, after: Numbers) -> PairedDifference:
    """Median over samples of after minus before, both (N,), infinite where censored, with its interval.

    The ends are order statistics (the inverted sign test), so nothing is assumed of the
    distribution. Two censored values differ by an unknown amount, which counts as no change.

    Raises:
        UsageError: no samples, not equally many, NaN, or minus infinity.

    >>> median_shift([1.0] * 9, [2.0] * 8 + [float("inf")]).value
    1.0
    """
    from scipy.stats import quantile_test

    first, second = _pair(before, after, np.float64)
    if bool(np.isnan(first).any() or np.isnan(second).any() or np.isneginf([first, second]).any()):
        raise UsageError("distances must be numbers or infinite (nothing found), got NaN or minus infinity")
    both = np.isinf(first) & np.isinf(second)
    with np.errstate(invalid="ignore"):
        shift = np.sort(np.where(both, 0.0, second - first))
    low, high = (float(end) for end in quantile_test(shift, p=0.5).confidence_interval())
    if math.isnan(low):  # too few samples for any end
        low, high = -math.inf, math.inf
    # The lower median: one of the values, so that nothing is interpolated with infinity.
    value, count = float(shift[(len(shift) - 1) // 2]), len(shift)
    gained, lost = int((shift > 0).sum()), int((shift < 0).sum())
    return PairedDifference(value, low, high, count, gained=gained, lost=lost, p=_sign_test(gained, lost))


@arithmetic
def ratio_values(first: Array, second: Array) -> Array:
    """Values (N,) whose mean is the ratio of two means over the same samples, and whose spread is its linearization's.

    >>> ratio_values(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    array([0.5, 1.5])
    """
    ratio = first.mean() / second.mean()
    values: Array = ratio + (first - ratio * second) / second.mean()
    return values


@arithmetic
def ratio_of_medians(first: Numbers, second: Numbers) -> Estimate:
    """The ratio of two medians over the same samples, (N,) each, with a bootstrap interval over samples.

    What is infinite counts as the largest value found (at least 1).

    >>> ratio_of_medians([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]).value
    2.0
    """
    return _ratio(np.median, first, second)


@arithmetic
def ratio_of_means(first: Numbers, second: Numbers) -> Estimate:
    """The ratio of two means over the same samples, as `ratio_of_medians` gives that of the medians.

    >>> ratio_of_means([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]).value
    2.5
    """
    return _ratio(np.mean, first, second)


@arithmetic
def rank_correlation(first: Numbers, second: Numbers) -> Estimate | None:
    """Spearman's rank correlation of two measurements, (N,) each, with a bootstrap interval over samples.

    None for fewer than three samples, or where a measurement is the same for all.

    >>> rank_correlation([1.0, 2.0, 3.0], [1.0, 4.0, 9.0]).value
    1.0
    """
    a, b = _pair(first, second, np.float64)
    if a.size < 3 or a.min() == a.max() or b.min() == b.max():
        return None
    return bootstrap(_spearman, a, b)


def _pair(before: Numbers, after: Numbers, dtype: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    first, second = np.asarray(before, dtype=dtype), np.asarray(after, dtype=dtype)
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise UsageError(
            f"paired values must be (N,) of the same samples, at least one, got {first.shape} and {second.shape}"
        )
    return first, second


def _excess(difference: float, gained: int, lost: int, count: int, level: float) -> float:
    """By how much more than `level` standard errors the observed difference lies above this one."""
    # The most likely share of losses under this difference is the larger root of a quadratic.
    a = 2 * count
    b = -gained - lost + (2 * count - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    losing = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = count * (2 * losing + difference * (1 - difference))
    above = gained - lost - count * difference
    if variance <= 0:
        # Infinitely many, as a number that the root finder can divide by.
        return math.copysign(1e9, above) if above else -level
    return above / math.sqrt(variance) - level


def _sign_test(gained: int, lost: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _ratio(center: Any, first: Numbers, second: Numbers) -> Estimate:
    arrays = _pair(first, second, np.float64)
    top = max(float(a[np.isfinite(a)].max(initial=1.0)) for a in arrays)

    def ratio(upper: Array, lower: Array, axis: int) -> Any:
        return center(upper, axis=axis) / np.maximum(center(lower, axis=axis), _LEAST)

    return bootstrap(ratio, *(np.where(np.isfinite(a), a, top) for a in arrays))


def _spearman(first: Array, second: Array, axis: int) -> Array:
    """Rank correlations (*) of rows (*, N); NaN where a row is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=axis) for values in (first, second)]
    units = [r - r.mean(axis, keepdims=True) for r in ranks]
    size = np.sqrt(np.prod([np.square(u).sum(axis) for u in units], axis=0))
    found: Array = np.where(size > 0, (units[0] * units[1]).sum(axis), np.nan) / np.where(size > 0, size, 1.0)
    return found.round(12)
