"""Intervals and quantiles: against root finding, SciPy, exact sums and simulation."""

from __future__ import annotations

import functools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from oracles import intervals as oracle
from steadygrad.errors import UsageError
from steadygrad.measuring.statistics import (
    Estimate,
    bootstrap,
    critical_count,
    mean,
    newcombe,
    over_seeds,
    quantile_intervals,
    quantiles,
    share_of,
    wilson,
)

_shares = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
_values = st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=30)


@given(_shares)
def test_wilson_solves_the_score_equation(share: tuple[int, int]) -> None:
    got = wilson(*share)
    low, high = oracle.score_interval(*share)
    assert (got.low, got.high) == pytest.approx((low, high), abs=1e-9)


@given(_shares)
def test_wilson_equals_its_closed_form(share: tuple[int, int]) -> None:
    got = wilson(*share)
    assert (got.low, got.high) == pytest.approx(oracle.wilson(*share), abs=1e-12)
    assert got.value == share[0] / share[1]
    assert got.count == share[1]


@given(st.integers(2, 500).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_one_more_success_moves_the_interval_up(share: tuple[int, int]) -> None:
    successes, count = share
    less, more = wilson(successes, count), wilson(successes + 1, count)
    assert less.low < more.low
    assert less.high < more.high


@given(_shares)
def test_wilson_holds_its_value_and_mirrors(share: tuple[int, int]) -> None:
    successes, count = share
    got, other = wilson(successes, count), wilson(count - successes, count)
    assert 0 <= got.low <= got.value <= got.high <= 1
    assert (got.low, got.high) == pytest.approx((1 - other.high, 1 - other.low), abs=1e-12)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("count", [30, 200])
def test_wilson_covers_the_truth_in_95_of_100_draws(share: float, count: int) -> None:
    draws = np.random.default_rng(0).binomial(count, share, size=4000).tolist()
    interval = functools.lru_cache(None)(lambda k: wilson(k, count))
    covered = sum(interval(k).low <= share <= interval(k).high for k in draws) / len(draws)
    assert 0.92 <= covered <= 0.985


def test_wilson_covers_95_percent_on_average_over_shares() -> None:
    count, shares = 40, np.linspace(0.01, 0.99, 197)
    found = [wilson(k, count) for k in range(count + 1)]
    inside = np.array([[f.low <= p <= f.high for f in found] for p in shares])
    weight = stats.binom.pmf(np.arange(count + 1)[None], count, shares[:, None])
    assert (inside * weight).sum(1).mean() == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_share(successes: int, count: int) -> None:
    with pytest.raises(UsageError, match=f"got {successes} of {count}"):
        wilson(successes, count)


@given(_values)
def test_mean_equals_its_formula(values: list[float]) -> None:
    got = mean(values)
    assert (got.value, got.low, got.high) == pytest.approx(oracle.student_interval(values), rel=1e-9, abs=1e-9)
    assert got.count == len(values)


def test_mean_equals_scipys_one_sample_t_test() -> None:
    values = np.random.default_rng(1).normal(3, 2, size=17)
    got, want = mean(values), stats.ttest_1samp(values, 0).confidence_interval()
    assert (got.low, got.high) == pytest.approx((want.low, want.high))


def test_mean_of_one_value_has_no_width() -> None:
    assert mean([0.25]) == Estimate(0.25, 0.25, 0.25, 1)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_mean_refuses_nothing_and_what_is_not_finite(values: list[float]) -> None:
    with pytest.raises(UsageError, match=f"finite values, got {len(values)}"):
        mean(values)


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_over_seeds_is_the_mean_over_trainings_in_any_order(values: list[float], order: random.Random) -> None:
    got = over_seeds([Estimate(v, 0.0, 1.0, 1000) for v in values])
    assert got == mean(values)
    assert got.low <= got.value <= got.high
    shuffled = over_seeds(order.sample(values, len(values)))
    assert (shuffled.low, shuffled.high) == pytest.approx((got.low, got.high), abs=1e-9)


@pytest.mark.parametrize("values", [[], [0.5], [wilson(1, 2)]])
def test_over_seeds_needs_two_trainings(values: list[Estimate | float]) -> None:
    with pytest.raises(UsageError, match=f"at least two trainings, got {len(values)}"):
        over_seeds(values)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    # Newcombe 1998, Statistics in Medicine 17, table II, method 10.
    [((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090)), ((10, 10), (0, 20), (0.6791, 1.0))],
)
def test_the_interval_of_a_difference_is_the_published_one(
    first: tuple[int, int], second: tuple[int, int], expected: tuple[float, float]
) -> None:
    found = newcombe(wilson(*first), second[0] / second[1], second[1])
    assert (found.low, found.high) == pytest.approx(expected, abs=6e-5)
    assert found.value == pytest.approx(first[0] / first[1] - second[0] / second[1])


@given(_shares, _shares)
def test_a_difference_of_shares_mirrors_and_stays_within_one(first: tuple[int, int], second: tuple[int, int]) -> None:
    one, other = (newcombe(wilson(*a), b[0] / b[1], b[1]) for a, b in ((first, second), (second, first)))
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low), abs=1e-12)
    assert -1 - 1e-12 <= one.low <= one.value <= one.high <= 1 + 1e-12


def test_a_number_without_a_spread_shifts_our_interval() -> None:
    found = Estimate(0.3, 0.28, 0.32, 100).minus(0.25)
    assert (found.value, found.low, found.high) == pytest.approx((0.05, 0.03, 0.07))
    assert not found.includes_zero
    assert Estimate(0.02, -0.01, 0.05).includes_zero


@given(st.lists(st.one_of(st.floats(0, 10, width=32), st.just(math.inf)), min_size=1, max_size=120))
def test_quantiles_equal_their_definition_and_censored_ones_are_none(values: list[float]) -> None:
    got = quantiles(values)
    assert list(got) == ["0.05", "0.25", "0.5", "0.75", "0.95"]
    for level, value in got.items():
        want = oracle.quantile(values, Fraction(level))
        assert value == (want if math.isfinite(want) else None)


@pytest.mark.parametrize("count", [20, 100, 140, 700, 1000])
def test_quantiles_do_not_slip_where_the_level_meets_a_sample(count: int) -> None:
    for text in ("0.05", "0.07", "0.25", "0.29", "0.5", "0.75", "0.95"):
        want = oracle.quantile(range(count), Fraction(text))
        assert quantiles(np.arange(count), at=(float(text),))[text] == want


def test_quantiles_of_nothing_are_none() -> None:
    assert quantiles([], at=(0.5,)) == {"0.5": None}
    assert quantiles([math.inf, math.inf], at=(0.0, 0.5)) == {"0.0": None, "0.5": None}


def test_an_estimate_prints_percent_and_is_plain() -> None:
    estimate = Estimate(0.5, 0.25, 0.75, 4)
    assert str(estimate) == "50.0 % [25.0, 75.0]"
    assert estimate.plain() == {"value": 0.5, "low": 0.25, "high": 0.75, "count": 4}
    assert Estimate(0.5, -math.inf, 0.75).plain() == {"value": 0.5, "low": None, "high": 0.75}
    assert share_of([True, False, True, False]) == wilson(2, 4)


def _at_least(k: int, count: int, share: Fraction) -> Fraction:
    """P(at least k of count) with exact fractions."""
    terms = (math.comb(count, i) * share**i * (1 - share) ** (count - i) for i in range(k, count + 1))
    return sum(terms, Fraction(0))


@pytest.mark.parametrize("count", [1, 2, 5, 10, 30, 77, 120])
@pytest.mark.parametrize("share", [Fraction(1, 100), Fraction(1, 20), Fraction(1, 2)])
def test_the_critical_count_is_the_smallest_that_a_true_share_rarely_reaches(count: int, share: Fraction) -> None:
    k = critical_count(count, float(share))
    assert _at_least(k, count, share) < Fraction(1, 100)
    assert k == 0 or _at_least(k - 1, count, share) >= Fraction(1, 100)


@pytest.mark.parametrize("count", [1, 3, 6, 20, 61])
@pytest.mark.parametrize("level", [Fraction(1, 20), Fraction(1, 4), Fraction(1, 2), Fraction(19, 20)])
def test_the_ends_of_a_quantile_are_the_ranks_that_hold_it(count: int, level: Fraction) -> None:
    # P(value at rank r <= quantile) is P(at least r samples below it); 2.5 % may be lost at either end.
    found = quantile_intervals(range(1, count + 1), at=(float(level),))[str(float(level))]
    ranks = range(1, count + 1)
    low = [r for r in ranks if _at_least(r, count, level) >= Fraction(39, 40)]
    high = [r for r in ranks if 1 - _at_least(r, count, level) >= Fraction(39, 40)]
    assert found["low"] == (max(low) if low else 0.0)
    assert found["high"] == (min(high) if high else None)
    assert found["value"] == oracle.quantile(list(ranks), level)


@pytest.mark.slow
def test_quantile_intervals_hold_what_they_promise() -> None:
    draws, held = np.random.default_rng(0).exponential(size=(2000, 40)), 0
    for sample in draws:
        row = quantile_intervals(sample, at=(0.5,))["0.5"]
        assert row["low"] is not None
        assert row["high"] is not None
        held += row["low"] <= math.log(2) <= row["high"]
    assert held / len(draws) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / len(draws))


def test_censored_values_are_beyond() -> None:
    rows = quantile_intervals([0.1] * 40 + [math.inf] * 60, at=(0.25, 0.5))
    assert rows["0.25"] == {"value": 0.1, "low": 0.1, "high": 0.1}
    assert rows["0.5"] == {"value": None, "low": 0.1, "high": None}  # rank 40 just belongs to the interval
    assert quantile_intervals([math.inf] * 30, at=(0.5,))["0.5"] == {"value": None, "low": None, "high": None}
    assert quantile_intervals([], at=(0.5,))["0.5"]["value"] is None


def test_the_bootstrap_of_a_mean_is_as_wide_as_its_normal_interval() -> None:
    values = np.random.default_rng(3).normal(1, 2, size=400)
    got, half = bootstrap(np.mean, values), 1.96 * values.std() / 20
    assert got.value == values.mean()
    assert (got.low, got.high) == pytest.approx((got.value - half, got.value + half), abs=0.1 * half)
    assert got == bootstrap(np.mean, values)


def test_the_bootstrap_draws_whole_samples() -> None:
    values = np.random.default_rng(0).random(50)
    got = bootstrap(lambda a, b, axis: (a - b).mean(axis), values + 1, values)
    assert (got.low, got.high) == pytest.approx((1, 1))


def test_the_bootstrap_takes_infinite_values_and_a_single_one() -> None:
    got = bootstrap(np.median, [1.0] * 30 + [math.inf] * 25)
    assert (got.value, got.low, got.high) == (1.0, 1.0, math.inf)
    assert bootstrap(np.median, [3.0]) == Estimate(3.0, 3.0, 3.0)


@pytest.mark.slow
def test_the_bootstrap_covers_a_median_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).exponential(size=(300, 60))
    held = sum(found.low <= math.log(2) <= found.high for found in (bootstrap(np.median, d) for d in draws))
    assert 0.9 <= held / len(draws) <= 0.99
