"""The verdict praises only what the same images show, on two sides that can be believed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from oracles import paired as oracle
from steadygrad.audit.comparison import Side, compare
from steadygrad.errors import UsageError

COUNT = 100


def side(right: int = 95, stood: int = 40, distance: float = 0.1, **changed: Any) -> Side:
    """A model that is right on the first so many samples, and stands on the first so many of those."""
    made = Side(
        samples=[f"test/{i}" for i in range(COUNT)],
        right=[i < right for i in range(COUNT)],
        stood=[i < stood for i in range(COUNT)],
        distance=[distance] * 50,
        state="holds",
        text="number holds",
    )
    return replace(made, **changed)


def _interval(gained: int, lost: int) -> str:
    low, high = sorted(abs(100 * end) for end in oracle.score_interval(gained, lost, COUNT))
    return f"[{low:.1f}, {high:.1f}]"


def test_a_gain_that_is_shown_is_called_better_with_its_price() -> None:
    found = compare(side(), side(right=85, stood=60, distance=0.2))
    assert found.outcome == "better"
    assert found.text.startswith(f"better: robust accuracy rises by 20.0 points {_interval(20, 0)} on 100 images")
    assert f"; clean accuracy falls by 10.0 points {_interval(0, 10)}" in found.text
    assert "smallest changes" not in found.text


def test_where_no_price_is_shown_it_says_so_with_the_interval() -> None:
    assert "no change of clean accuracy is shown: -1.0 points" in compare(side(), side(right=94, stood=60)).text


@pytest.mark.parametrize(("distance", "words"), [(0.1, "grew is not shown"), (0.05, "but the smallest changes shrank")])
def test_distances_that_do_not_agree_are_named(distance: float, words: str) -> None:
    found = compare(side(), side(stood=60, distance=distance))
    assert found.outcome == "better"
    assert words in found.text


@pytest.mark.parametrize("stood", [36, 40, 42, 45])
def test_within_the_noise_nothing_is_called_better(stood: int) -> None:
    found = compare(side(), side(stood=stood, distance=0.5))
    assert found.outcome == "not shown"
    assert found.text.startswith(f"no difference in robust accuracy is shown: {stood - 40:+.1f} points [")
    assert "better" not in found.text


def test_few_samples_that_moved_are_too_few_even_where_the_interval_leaves_out_zero() -> None:
    found = compare(side(), side(stood=44))
    assert found.robust.low > 0
    assert found.outcome == "not shown"
    assert "too few moved (exact p = 0.12)" in found.text


def test_a_loss_is_called_a_loss() -> None:
    found = compare(side(), side(stood=20))
    assert found.outcome == "worse"
    assert found.text.startswith(f"worse: robust accuracy falls by 20.0 points {_interval(0, 20)} on 100 images")


@pytest.mark.parametrize("which", ["before", "after", "both"])
@pytest.mark.parametrize("stood", [20, 40, 90])
def test_a_failed_check_on_either_side_forbids_any_verdict(which: str, stood: int) -> None:
    bad = {"state": "refuted", "text": "number refuted, because noise breaks it"}
    before, after = side(**(bad if which != "after" else {})), side(stood=stood, **(bad if which != "before" else {}))
    found = compare(before, after)
    assert found.outcome == "refuted"
    assert found.text.startswith("not to be called better or worse (")
    for word in ("before", "after"):
        named = f"{word} hardening: number refuted, because noise breaks it"
        assert (named in found.text) == (which in (word, "both"))
    assert f"measured: {stood - 40:+.1f} points" in found.text


def test_plain_data_hold_both_sides_and_the_differences() -> None:
    plain = compare(side(distance=math.inf), side(stood=60)).plain()
    assert plain["before"]["median_distance"] is None
    assert (plain["before"]["robust"]["value"], plain["after"]["robust"]["value"]) == (0.4, 0.6)
    assert plain["difference"]["robust"]["gained"] == 20
    assert plain["difference"]["distance"]["value"] is None
    assert plain["after"]["distances"] == 50


def test_other_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="same samples in the same order"):
        compare(side(), side(samples=[f"test/{i}" for i in reversed(range(COUNT))]))
