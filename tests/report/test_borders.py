"""The lower border of robust accuracy on the page."""

from __future__ import annotations

from typing import Any

from report.fake_summary import full
from steadygrad.audit.schema import Summary
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
