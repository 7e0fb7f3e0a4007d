"""The lower border of robust accuracy on the page."""

from __future__ import annotations

from typing import Any

from report.fake_summary import draw, full
from steadygrad.audit.schema import Summary
from steadygrad.report.sections.curves_section import curves
from steadygrad.report.sections.headline_section import sentence


def _summary(**changed: Any) -> Summary:
    summary = full()[0]
    summary["models"][-1]["certified"]["borders"].update(changed)
    return Summary.model_validate(summary)


def test_the_sentence_says_both_borders() -> None:
    said = sentence(_summary())
    assert "is between 76.0 % [70.9, 80.5] (certified) and 86.0 % [81.6, 89.5] (attacked)." in said


def test_borders_that_cross_are_no_sentence() -> None:
    assert "certified" not in sentence(_summary(crossed=1))


def test_the_curve_has_a_lower_border_that_is_told_too() -> None:
    said, crossed = (curves(_summary(crossed=count)) for count in (0, 1))
    assert "PGD + gradient penalty: 94.2 % at ε 0, 5.6 % at ε 0.2, certified 2.8 % there" in said
    assert "certified" not in crossed
    assert said.count("<path") == crossed.count("<path") + 2  # the border and the band


def test_numbers_that_cross_are_struck() -> None:
    summary, arrays = full()
    assert "PGD + gradient penalty, certified" in draw(summary, arrays)
    plain = draw(summary, arrays).count("<s class")
    summary["models"][-1]["certified"]["borders"]["distances"]["crossed"] = 1
    page = draw(summary, arrays)
    assert "PGD + gradient penalty, certified" not in page
    assert page.count("<s class") == plain + 6  # what is certified, and five quantiles
