"""Paired differences equal their definitions, cover what they claim to, and show nothing where nothing is."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, multinomial, spearmanr

from oracles import paired as oracle
from steadygrad.errors import UsageError
from steadygrad.measuring.paired import (
    PairedDifference,
    difference_of_shares,
    mean_difference,
    median_shift,
    rank_correlation,
    ratio_of_means,
    ratio_of_medians,
)
from steadygrad.measuring.statistics import Estimate


def _shares(gained: int, lost: int, count: int, both: int | None = None) -> PairedDifference:
    """From counts: samples that gained, lost, and, of the rest, were right on both sides."""
    same = count - gained - lost
    both = same // 2 if both is None else both
    before = [False] * gained + [True] * lost + [True] * both + [False] * (same - both)
    after = [True] * gained + [False] * lost + [True] * both + [False] * (same - both)
    return difference_of_shares(before, after)


CASES = [
    (8, 3, 40),
    (0, 0, 25),
    (5, 0, 20),
    (0, 7, 30),
    (1, 1, 2),
    (30, 2, 100),
    (60, 40, 100),
    (12, 9, 300),
    (3, 0, 3),
]


@pytest.mark.parametrize(("gained", "lost", "count"), CASES)
def test_the_interval_is_that_of_the_score_test(gained: int, lost: int, count: int) -> None:
    found = _shares(gained, lost, count)
    low, high = oracle.score_interval(gained, lost, count)
    assert (found.gained, found.lost, found.count) == (gained, lost, count)
    assert found.value == pytest.approx((gained - lost) / count, abs=1e-15)
    assert found.low == pytest.approx(low, abs=1e-6)
    assert found.high == pytest.approx(high, abs=1e-6)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert found.p == pytest.approx(oracle.uneven(gained, lost), rel=1e-9)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_value_and_mirrors(counts: tuple[int, int, int]) -> None:
    gained, lost, count = counts[0], min(counts[1], counts[2] - counts[0]), counts[2]
    one, other = _shares(gained, lost, count), _shares(lost, gained, count)
    assert -1 <= one.low <= one.value <= one.high <= 1
    assert one.low < one.high
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low), abs=1e-12)
    assert one.direction == -other.direction


@given(st.integers(2, 60).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.integers(0, n), st.just(n))))
def test_one_more_gain_moves_the_interval_up(counts: tuple[int, int, int]) -> None:
    gained, lost, count = counts[0], min(counts[1], counts[2] - counts[0] - 1), counts[2]
    less, more = _shares(gained, lost, count), _shares(gained + 1, lost, count)
    assert less.low <= more.low
    assert less.high <= more.high + 1e-12


def test_where_both_agree_does_not_matter_and_the_sides_mirror_each_other() -> None:
    assert _shares(9, 2, 60, both=0) == _shares(9, 2, 60, both=49)
    one, other = _shares(9, 2, 60), _shares(2, 9, 60)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low), abs=1e-12)
    assert one.p == other.p


@pytest.mark.parametrize("count", [10, 50])
def test_the_interval_leaves_out_zero_exactly_where_mcnemars_test_rejects(count: int) -> None:
    limit = chi2.ppf(0.95, 1)
    seen = set()
    for gained, lost in itertools.product(range(count + 1), repeat=2):
        if not 0 < gained + lost <= count:
            continue
        rejects = (gained - lost) ** 2 / (gained + lost) > limit
        found = _shares(gained, lost, count)
        assert rejects == (not found.low <= 0 <= found.high), (gained, lost)
        seen.add((rejects, found.direction != 0))
        # The exact test has the last word where few samples moved.
        assert (found.direction != 0) == (rejects and oracle.uneven(gained, lost) < 0.05)
    assert seen == {(False, False), (True, True), (True, False)}


@pytest.mark.parametrize("shares", [(0.2, 0.05), (0.1, 0.1), (0.02, 0.01), (0.4, 0.3)])
def test_the_interval_covers_the_truth_as_often_as_it_says(shares: tuple[float, float]) -> None:
    count, truth, covered, wrongly = 40, shares[0] - shares[1], 0.0, 0.0
    law = multinomial(count, [*shares, 1 - sum(shares)])
    for gained in range(count + 1):
        for lost in range(count + 1 - gained):
            chance = law.pmf([gained, lost, count - gained - lost])
            if chance > 1e-7:
                found = _shares(gained, lost, count)
                covered += chance * (found.low <= truth <= found.high)
                wrongly += chance * (truth == 0 and found.direction != 0)
    assert covered > 0.93
    assert wrongly < 0.05


def test_without_a_pairing_the_interval_would_be_wider() -> None:
    # 70 % and 80 % of 200: two samples of 200 would show nothing, the same 200 do.
    found = _shares(22, 2, 200, both=138)
    alone = 1.96 * math.sqrt(0.7 * 0.3 / 200 + 0.8 * 0.2 / 200)
    assert found.direction == 1
    assert found.value - found.low < 0.7 * alone


@pytest.mark.parametrize("count", [1, 5, 6, 7, 20, 101])
def test_the_shift_is_a_median_with_the_interval_of_the_sign_test(count: int) -> None:
    drawn = np.random.default_rng(count)
    before, after = drawn.random(count), drawn.random(count) + 0.3
    found, shifts = median_shift(before, after), sorted(after - before)
    assert found.value == shifts[(count - 1) // 2]
    assert (found.low, found.high) == oracle.sign_interval(shifts)
    assert (found.low == -math.inf) == (count < 6)
    gains, losses = (sum(bool(sign * s > 0) for s in shifts) for sign in (1, -1))
    assert found.p == pytest.approx(oracle.uneven(gains, losses))


def test_censored_distances_rank_last_and_two_of_them_are_no_change() -> None:
    beyond = math.inf
    found = median_shift([0.1] * 9 + [beyond] * 11, [0.2] * 4 + [beyond] * 16)
    assert (found.gained, found.lost, found.value) == (9, 0, 0.0)
    assert found.direction == 0  # half of them may have moved either way
    assert median_shift([0.1] * 20, [beyond] * 20).plain() == {
        "value": None, "low": None, "high": None, "count": 20, "gained": 20, "lost": 0,
        "p": pytest.approx(2 / 2**20),
    }  # fmt: skip
    assert median_shift([0.1] * 20, [beyond] * 20).direction == 1
    assert median_shift([beyond] * 20, [0.1] * 20).direction == -1


def test_noise_is_rarely_taken_for_a_shift() -> None:
    drawn = np.random.default_rng(0)
    found = [median_shift(drawn.random(30), drawn.random(30)).direction for _ in range(400)]
    assert sum(d != 0 for d in found) / len(found) < 0.06
    assert sum(median_shift(drawn.random(30), drawn.random(30) + 0.5).direction == 1 for _ in range(50)) > 45


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([], [], "paired values must be"),
        ([0.1], [0.1, 0.2], "paired values must be"),
        ([[0.1]], [[0.1]], r"before must be a list or an array \(N,\) of numbers"),
        ([math.nan], [0.1], "NaN"),
        ([0.1], [-math.inf], "minus infinity"),
    ],
)
def test_what_is_no_pair_is_refused(before: list[float], after: list[float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        median_shift(before, after)
    if words == "paired values must be":
        with pytest.raises(UsageError, match=words):
            difference_of_shares(before, after)


def test_mean_differences_by_hand() -> None:
    first, second = [1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]
    found = mean_difference(first, second)
    gaps = np.subtract(first, second)
    half = 3.182446 * math.sqrt(gaps.var(ddof=1) / 4)  # 97.5 % point of Student's t with 3 degrees of freedom
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-5)


def test_the_ratio_of_medians_has_an_interval_that_covers_it() -> None:
    drawn = np.random.default_rng(1)
    second = drawn.random(400) + 1
    first = 1.5 * second * (1 + 0.05 * drawn.standard_normal(400))
    found = ratio_of_medians(first, second)
    assert found.low < 1.5 < found.high
    assert found.high - found.low < 0.2
    first[:300] = np.inf
    assert ratio_of_medians(first, second).value > 1.5


@pytest.mark.parametrize("ratio", [ratio_of_medians, ratio_of_means])
def test_a_ratio_to_itself_is_one_and_a_factor_passes_through(ratio: Any) -> None:
    values = np.random.default_rng(5).random(40) + 0.5
    assert ratio(values, values) == Estimate(1.0, 1.0, 1.0)
    found = ratio(3 * values, values)
    assert (found.value, found.low, found.high) == pytest.approx((3, 3, 3))


def test_rank_correlation_is_spearmans_with_an_interval_around_it() -> None:
    drawn = np.random.default_rng(2)
    first = drawn.random(60)
    second = first + 0.3 * drawn.random(60)
    found = rank_correlation(first, second)
    assert found is not None
    assert found.value == pytest.approx(spearmanr(first, second).statistic)
    assert found.low < found.value < found.high
    assert found == rank_correlation(second, first) == rank_correlation(np.exp(first), second)
    assert rank_correlation(first, np.ones(60)) is None
    assert rank_correlation(first[:2], second[:2]) is None


def test_draws_of_a_single_sample_have_no_rank_correlation() -> None:
    assert rank_correlation([0.0, 1.0, 2.0], [1.0, 3.0, 2.0]) == Estimate(0.5, -1.0, 1.0)
