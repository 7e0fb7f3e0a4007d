"""Published numbers, and claims about ours."""

from __future__ import annotations

import pytest

from steadygrad.errors import UsageError
from steadygrad.measuring.statistics import Estimate
from steadygrad.papers.claims import Claim, published


def test_the_shipped_tables_hold_what_the_methods_pages_cite():
    table = {(r["dataset"], r["network"], r["method"]): r for r in published("yan2018_table1")}
    assert float(table["mnist", "mlp", "deep_defense"]["rho2"]) == 0.225
    assert float(table["mnist", "lenet", "deep_defense"]["accuracy_pct"]) == 99.34
    keys = ("dataset", "attack", "evaluated_model", "source_model", "eps")
    transfer = {tuple(r[k] for k in keys): float(r["accuracy_pct"]) for r in published("ross2018_transfer")}
    assert transfer["mnist", "fgsm", "normal", "normal", "0.2"] == 27.7
    assert transfer["mnist", "fgsm", "doubleback", "normal", "0.2"] == 92.2
    with pytest.raises(UsageError, match="no published numbers 'ross2019'"):
        published("ross2019")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Estimate(0.3, 0.26, 0.34), "held"),
        (Estimate(0.3, 0.2, 0.4), "held, within its interval"),
        (Estimate(0.2, 0.1, 0.3), "not held, within its interval"),
        (Estimate(0.2, 0.18, 0.22), "not held"),
        (None, "not measured"),
    ],
)
def test_a_claim_says_whether_its_interval_reaches_the_bar(found, expected):
    claim = Claim("a", found, "at least", 0.25, "points")
    assert claim.needed == "at least 25 points"
    assert claim.verdict == expected
    assert claim.held == expected.startswith("held")
    assert claim.plain()["held"] == claim.held
    turned = Estimate(-found.value, -found.high, -found.low) if found else None
    assert Claim("a", turned, "at most", -0.25).verdict == expected


def test_the_bar_itself_is_not_above_it():
    equal = Estimate(0.0, 0.0, 0.0)
    verdicts = {sense: Claim("a", equal, sense, 0.0).held for sense in ("at least", "at most", "above", "below")}
    assert verdicts == {"at least": True, "at most": True, "above": False, "below": False}
