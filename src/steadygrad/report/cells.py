"""Cells that several sections share: estimates, numbers with intervals, and names of models that are in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steadygrad.report.blocks import Cell, Inline, html, mark, missing
from steadygrad.report.wording import between, interval, percent

if TYPE_CHECKING:
    from steadygrad.audit.schema import Model
    from steadygrad.audit.schema_values import AttackVerdict, Estimate, Mean, Median

__all__ = ["DASH", "judged", "named", "plain", "ranged", "share"]

DASH = Cell(missing("–"))


def share(value: Estimate | None, stands: bool = True, **more: Any) -> Cell:
    """A share in percent with its interval, struck out where it does not stand."""
    if value is None:
        return Cell(missing(), **more)
    return Cell(percent(value.value), interval(value), struck=not stands, **more)


def plain(value: Mean | None, form: str = ".2f", scale: float = 1.0, **more: Any) -> Cell:
    """A number with its interval, all of one form."""
    if value is None:
        return DASH
    text, low, high = (format(scale * end, form) for end in (value.value, value.low, value.high))
    return Cell(text, f"[{low}, {high}]", **more)


def ranged(value: Mean | Median, **more: Any) -> Cell:
    """A number with its interval, each with three significant digits."""
    return Cell(*between(value.value, value.low, value.high), **more)


def judged(verdict: AttackVerdict, **more: Any) -> Cell:
    """A verdict with ✓ or ✗."""
    return Cell(verdict.text, good=verdict.trustworthy, **{"kind": "words", **more})


def named(model: Model) -> Inline:
    """The name of a model, and a warning where its number does not stand."""
    return model.name if model.verdict.trustworthy else html("{} {}", model.name, mark(False, "not trustworthy"))
