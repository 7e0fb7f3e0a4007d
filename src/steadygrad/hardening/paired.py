"""Differences between two models that saw the same samples, with intervals that use the pairing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from steadygrad.errors import UsageError

__all__ = ["Difference", "difference_of_shares", "median_shift"]

_Z = 1.959963984540054  # 97.5 % point of the normal distribution
_LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """After minus before on the same samples, with its 95 % interval; infinite ends are censored ones.

    `gained` and `lost` count the samples that moved up and down; `p` is the exact two-sided
    probability of so uneven a split if both were as likely (McNemar's test, the sign test).
    """

    value: float
    low: float
    high: float
    count: int
    gained: int
    lost: int
    p: float

    @property
    def direction(self) -> int:
        """1 or -1 where the interval leaves out zero and the exact test agrees, else 0: nothing is shown."""
        if self.p >= _LEVEL or self.low <= 0 <= self.high:
            return 0
        return 1 if self.low > 0 else -1

    def plain(self) -> dict[str, Any]:
        """As plain data for JSON: what is infinite is None."""
        values = dataclasses.asdict(self)
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def difference_of_shares(before: ArrayLike, after: ArrayLike) -> Difference:
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
    first, second = _pair(before, after, np.bool_)
    count, gained, lost = len(first), int((~first & second).sum()), int((first & ~second).sum())
    value = (gained - lost) / count

    def score(difference: float) -> float:
        return _score(difference, gained, lost, count)

    low = -1.0 if value == -1 else _crossing(score, -1.0, value, _Z)
    high = 1.0 if value == 1 else _crossing(score, value, 1.0, -_Z)
    return Difference(value, low, high, count, gained, lost, _sign_test(gained, lost))


def median_shift(before: ArrayLike, after: ArrayLike) -> Difference:
    """Median over samples of after minus before, both (N,), infinite where censored, with its interval.

    The ends are order statistics (the inverted sign test), so nothing is assumed of the
    distribution. Two censored values differ by an unknown amount, which counts as no change.

    Raises:
        UsageError: no samples, not equally many, NaN, or minus infinity.

    >>> median_shift([1.0] * 9, [2.0] * 8 + [float("inf")]).value
    1.0
    """
    from scipy.stats import binom

    first, second = _pair(before, after, np.float64)
    if bool(np.isnan(first).any() or np.isnan(second).any() or np.isneginf([first, second]).any()):
        raise UsageError("distances must be numbers or infinite (nothing found), got NaN or minus infinity")
    both = np.isinf(first) & np.isinf(second)
    with np.errstate(invalid="ignore"):
        shift = np.sort(np.where(both, 0.0, second - first))
    count = len(shift)
    # P(fewer than `rank` of the values lie below the median) is at most 2.5 %.
    rank = int(binom.ppf(_LEVEL / 2, count, 0.5))
    low, high = (shift[rank - 1], shift[count - rank]) if rank else (-np.inf, np.inf)
    # The lower median: one of the values, so that nothing is interpolated with infinity.
    value = shift[(count - 1) // 2]
    gained, lost = int((shift > 0).sum()), int((shift < 0).sum())
    return Difference(float(value), float(low), float(high), count, gained, lost, _sign_test(gained, lost))


def _pair(before: ArrayLike, after: ArrayLike, dtype: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    first, second = np.asarray(before, dtype=dtype), np.asarray(after, dtype=dtype)
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise UsageError(f"paired values must be (N,) of the same samples, got {first.shape} and {second.shape}")
    return first, second


def _score(difference: float, gained: int, lost: int, count: int) -> float:
    """How many standard errors the observed difference lies above this one."""
    # The most likely share of losses under this difference is the larger root of a quadratic.
    a = 2 * count
    b = -gained - lost + (2 * count - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    losing = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = count * (2 * losing + difference * (1 - difference))
    excess = gained - lost - count * difference
    if variance <= 0:
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


def _crossing(score: Callable[[float], float], low: float, high: float, level: float) -> float:
    """Where the falling score passes the level, between low and high."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if score(middle) > level else (low, middle)
    return (low + high) / 2


def _sign_test(gained: int, lost: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
