"""Published numbers and differences from them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steadygrad.errors import UsageError
from steadygrad.evaluation.statistics import Estimate, wilson
from steadygrad.papers.claims import at_least, at_most
from steadygrad.papers.published import Difference, between, from_number, paired, rows


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    # Newcombe 1998, Statistics in Medicine 17, table II, method 10.
    [((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090)), ((10, 10), (0, 20), (0.6791, 1.0))],
)
def test_the_interval_of_a_difference_is_the_published_one(first, second, expected):
    found = between(wilson(*first), second[0] / second[1], second[1])
    assert (found.low, found.high) == pytest.approx(expected, abs=6e-5)
    assert found.value == pytest.approx(first[0] / first[1] - second[0] / second[1])


def test_paired_differences_by_hand():
    first, second = [1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]
    found = paired(first, second)
    gaps = np.subtract(first, second)
    half = 3.182446 * math.sqrt(gaps.var(ddof=1) / 4)  # 97.5 % point of Student's t with 3 degrees of freedom
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-5)


def test_a_number_without_a_spread_shifts_our_interval():
    found = from_number(Estimate(0.3, 0.28, 0.32, 100), 0.25)
    assert (found.value, found.low, found.high) == pytest.approx((0.05, 0.03, 0.07))


def test_the_shipped_tables_hold_what_the_methods_pages_cite():
    table = {(r["dataset"], r["network"], r["method"]): r for r in rows("yan2018_table1")}
    assert float(table["mnist", "mlp", "deep_defense"]["rho2"]) == 0.225
    assert float(table["mnist", "lenet", "deep_defense"]["accuracy_pct"]) == 99.34
    keys = ("dataset", "attack", "evaluated_model", "source_model", "eps")
    transfer = {tuple(r[k] for k in keys): float(r["accuracy_pct"]) for r in rows("ross2018_transfer")}
    assert transfer["mnist", "fgsm", "normal", "normal", "0.2"] == 27.7
    assert transfer["mnist", "fgsm", "doubleback", "normal", "0.2"] == 92.2
    with pytest.raises(UsageError, match="no published numbers 'ross2019'"):
        rows("ross2019")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Difference(0.3, 0.26, 0.34), "held"),
        (Difference(0.3, 0.2, 0.4), "held, within its interval"),
        (Difference(0.2, 0.1, 0.3), "not held, within its interval"),
        (Difference(0.2, 0.18, 0.22), "not held"),
        (None, "not measured"),
    ],
)
def test_a_claim_says_whether_its_interval_reaches_the_bar(found, expected):
    claim = at_least("a", found, 0.25, "at least 25")
    assert claim.verdict == expected
    assert claim.held == expected.startswith("held")
    assert claim.plain()["held"] == claim.held
    turned = Difference(-found.value, -found.high, -found.low) if found else None
    mirrored = at_most("a", turned, -0.25, "at most -25")
    assert mirrored.verdict == expected
    assert mirrored.found == turned
