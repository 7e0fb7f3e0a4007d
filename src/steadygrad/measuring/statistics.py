"""Estimates with their 95 % intervals: shares, means, quantiles, bootstraps."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from steadygrad.arguments import arithmetic
from steadygrad.errors import UsageError
from steadygrad.kinds import Numbers
from steadygrad.turns import TURN
from steadygrad.values import Count, Fraction, Limit

_DRAWS = 2000  # of a bootstrap
_DRAWN = 1_000_000  # values drawn at once, which bounds the memory


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the number of samples behind it.

    `count` is 0 where no single number of samples stands behind the value, as for a difference to a published one.

    >>> print(wilson(41, 100))
    41.0 % [31.9, 50.8]
    """

    value: float
    low: float
    high: float
    count: int = 0

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    @property
    def includes_zero(self) -> bool:
        """Whether the interval leaves open on which side of zero the value lies."""
        return self.low <= 0 <= self.high

    @arithmetic
    def minus(self, number: float) -> Estimate:
        """The difference to a number of unknown spread: the interval is that of this estimate alone.

        >>> Estimate(0.5, 0.25, 0.75).minus(0.25)
        Estimate(value=0.25, low=0.0, high=0.5, count=0)
        """
        return Estimate(self.value - number, self.low - number, self.high - number)

    @arithmetic
    def within(self, low: float, high: float) -> Estimate:
        """The same with an interval that ends where the value can.

        >>> Estimate(0.9, 0.7, 1.1).within(0.0, 1.0)
        Estimate(value=0.9, low=0.7, high=1.0, count=0)
        """
        return dataclasses.replace(self, low=max(low, self.low), high=min(high, self.high))

    def plain(self) -> dict[str, Any]:
        """As plain data for JSON: what is infinite is None, and a count of 0 is left out."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if k != "count" or v}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


@arithmetic
def wilson(successes: int, count: int) -> Estimate:
    """A share with its Wilson score interval (Wilson 1927), which stays within [0, 1].

    Raises:
        UsageError: no samples, or more successes than samples.

    >>> wilson(0, 10).high > 0
    True
    """
    from scipy.stats import binomtest

    if count < 1 or not 0 <= successes <= count:
        raise UsageError(f"a share needs 0 <= successes <= count and a count of at least 1, got {successes} of {count}")
    share, found = successes / count, binomtest(successes, count).proportion_ci(method="wilson")
    # Rounding must not leave the value outside.
    return Estimate(share, min(share, float(found.low)), max(share, float(found.high)), count)


@arithmetic
def share_of(hits: Numbers) -> Estimate:
    """The share of True among hits (N,), with its Wilson interval.

    >>> print(share_of([True, False]))
    50.0 % [9.5, 90.5]
    """
    found = np.asarray(hits)
    if not found.size or not np.isin(found, (0, 1)).all():
        raise UsageError(f"hits must be true or false for each of at least one sample, got {found.size} values")
    return wilson(int(found.sum()), len(found))


@arithmetic
def newcombe(ours: Estimate, theirs: float, count: int) -> Estimate:
    """Our share minus a published one that was found on `count` samples.

    The interval is Newcombe's hybrid of two Wilson intervals (1998, method 10), for independent
    samples; where both used the same images it is wider than need be.

    >>> newcombe(wilson(90, 100), 0.9, 100).includes_zero
    True
    """
    other = wilson(min(count, max(0, round(theirs * count))), count)
    value = ours.value - theirs
    low = value - math.hypot(ours.value - ours.low, other.high - other.value)
    high = value + math.hypot(ours.high - ours.value, other.value - other.low)
    return Estimate(value, low, high)


@arithmetic
def mean(values: Numbers) -> Estimate:
    """A mean over samples with its 95 % interval by Student's t (a single sample has no width to show).

    Raises:
        UsageError: no values, or values that are not finite.

    >>> print(mean([0.25, 0.5, 0.75]))
    50.0 % [-12.1, 112.1]
    """
    from scipy.stats import t

    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise UsageError(f"a mean needs finite values, got {array.size} values")
    center = float(array.mean())
    if array.size == 1:
        return Estimate(center, center, center, 1)
    half = float(t.ppf(0.975, array.size - 1) * array.std(ddof=1) / math.sqrt(array.size))
    return Estimate(center, center - half, center + half, array.size)


@arithmetic
def over_seeds(values: Sequence[Estimate | float]) -> Estimate:
    """The mean over trainings that differ in their seed, with Student's t interval over the seeds.

    The intervals of the single trainings, which are over images, do not enter: their errors are part of the
    spread between the trainings. The count is the number of seeds.

    Raises:
        UsageError: fewer than two trainings, which say nothing about another seed.

    >>> print(over_seeds([wilson(90, 100), wilson(92, 100), wilson(91, 100)]))
    91.0 % [88.5, 93.5]
    """
    if len(values) < 2:
        raise UsageError(
            f"an interval over seeds needs values of at least two trainings, got {len(values)}: train more seeds"
        )
    return mean([v.value if isinstance(v, Estimate) else v for v in values])


@arithmetic
def quantiles(values: Numbers, at: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> dict[str, float | None]:
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


@arithmetic
def quantile_intervals(
    values: Numbers, at: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)
) -> dict[str, dict[str, float | None]]:
    """Quantiles of distances as in `quantiles`, each with its 95 % interval from order statistics.

    The ends are the values at the ranks between which the quantile lies with 95 % probability,
    whatever the distribution (Conover 1999, section 3.2). None stands for a value among the censored
    ones, and for an upper end for which there are too few samples; a missing lower end is 0.

    >>> quantile_intervals(range(1, 101), at=(0.5,))
    {'0.5': {'value': 50.0, 'low': 40.0, 'high': 61.0}}
    """
    from scipy.stats import quantile_test

    array = np.asarray(values, dtype=np.float64)
    found: dict[str, dict[str, float | None]] = {}
    for q, value in zip(at, quantiles(array, at).values(), strict=True):
        # SciPy gives NaN for an end for which there are too few samples.
        low, high = quantile_test(array, p=q).confidence_interval() if array.size else (math.nan, math.nan)
        ends = (0.0 if math.isnan(low) else float(low), float(high))
        lower, upper = (e if math.isfinite(e) else None for e in ends)
        found[str(q)] = {"value": value, "low": lower, "high": upper}
    return found


@arithmetic
def bootstrap(statistic: Callable[..., Any], *samples: Numbers) -> Estimate:
    """A statistic of measurements of the same samples, (N,) each, with its percentile bootstrap interval.

    Args:
        statistic: from arrays (*, N), one per measurement, and `axis=-1` to values (*); a draw for which it is
            NaN is left out.
        samples: the measurements; values may be infinite if the statistic takes them.

    The draws are the same in every call; a single sample has no width to show.

    >>> found = bootstrap(np.median, np.arange(101.0))
    >>> found.value, 35 < found.low < 45, 55 < found.high < 65
    (50.0, True, True)
    """
    from scipy.stats import bootstrap as draw

    arrays = [np.asarray(s, dtype=np.float64) for s in samples]
    value, count = float(statistic(*arrays, axis=-1)), len(arrays[0])
    if count == 1:
        return Estimate(value, value, value)
    with TURN, warnings.catch_warnings():
        # SciPy's own interval and standard error, which are not used, have no value where a draw is infinite or NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        drawn = draw(
            arrays, statistic, paired=True, vectorized=True, n_resamples=_DRAWS, batch=max(1, _DRAWN // count),
            method="percentile", random_state=np.random.default_rng(0),
        ).bootstrap_distribution  # fmt: skip
    # Always one of the draws: nothing is interpolated with infinity.
    low, high = np.nanquantile(drawn, [0.025, 0.975], method="nearest")
    return Estimate(value, float(low), float(high))


_Probability = Annotated[float, Limit("within [0, 1]", lambda value: 0 <= value <= 1)]


@arithmetic
def critical_count(count: Count, share: _Probability, level: Fraction = 0.01) -> int:
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
