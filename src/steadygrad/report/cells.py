"""Cells and tables that sections and papers share: numbers with their intervals, verdicts, a row per model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steadygrad.report.blocks import Cell, Inline, Table, html, mark, missing
from steadygrad.report.wording import between, interval, percent

if TYPE_CHECKING:
    from steadygrad.audit.schema import Model
    from steadygrad.audit.schema_certified import Borders
    from steadygrad.audit.schema_values import AttackVerdict, Ends, Interval
    from steadygrad.measuring import statistics

DASH = Cell(missing("–"))
SCALE = html('<span class="scale"><span>0</span> <span>100 %</span></span>')
"""The head of a column of whiskers."""


def share(value: Interval[Any] | None, stands: bool = True, **more: Any) -> Cell:
    """A share in percent with its interval, struck out where it does not stand."""
    if value is None:
        return Cell(missing(), **more)
    return Cell(percent(value.value), interval(value), struck=not stands, **more)


def whisker(value: Interval[Any], mark: float, kind: str = "") -> Cell:
    """A share with its interval as dot and bar, and another share as an upright mark, from 0 to 100 %."""
    at, low, high, middle = (f"{100 * end:.2f}%" for end in (mark, value.low, value.high, value.value))
    drawn = html(
        '<svg class="whisker{}" aria-hidden="true" width="100%" height="18">'
        '<line class="axis" x1="0" x2="100%" y1="9" y2="9"/><line class="clean" x1="{}" x2="{}" y1="3" y2="15"/>'
        '<line class="range" x1="{}" x2="{}" y1="9" y2="9"/><circle cx="{}" cy="9" r="4.5"/></svg>',
        *(kind and f" {kind}", at, at, low, high, middle),
    )
    return Cell(drawn, kind="plot")


def ranged(
    value: Ends[Any] | statistics.Estimate | None, form: str = "", scale: float = 1.0, unit: str = "", **more: Any
) -> Cell:
    """A number with its interval, in one form, or with three significant digits; a dash for None.

    >>> from steadygrad.measuring.statistics import Estimate
    >>> ranged(Estimate(0.5, 0.25, 0.75), ".1f", 100).below
    '[25.0, 75.0]'
    """
    if value is None:
        return DASH
    ends = (value.value, value.low, value.high)
    if not form:
        text, below = between(*ends)
    else:
        text, low, high = ("beyond" if end is None else format(scale * end, form) for end in ends)
        below = f"[{low}, {high}]"
    return Cell(text + unit, below, **more)


def percentage(value: statistics.Estimate, digits: int = 1, **more: Any) -> Cell:
    """A share in percent with its interval, in a column whose head says so."""
    return ranged(value, f".{digits}f", 100, **more)


def judged(verdict: AttackVerdict, **more: Any) -> Cell:
    """A verdict with ✓, ✗, or – where there is none."""
    good = {"holds": True, "refuted": False}.get(verdict.state)
    text: Inline = verdict.text if good is not None else mark(None, verdict.text)
    return Cell(text, good=good, **{"kind": "words", **more})


def borders_of(model: Model) -> Borders | None:
    """What is certified of a model, if anything."""
    return None if model.certified is None else model.certified.borders


def named(model: Model) -> Inline:
    """The name of a model, and a warning where its number does not stand."""
    if model.verdict.state == "holds":
        return model.name
    return html("{} {}", model.name, mark(False if model.verdict.state == "refuted" else None, model.verdict.state))


def by_model(
    models: Sequence[Model],
    caption: Inline,
    columns: Mapping[Inline, Callable[[Any], Cell]],
    name: Callable[[Model], Inline] = named,
    **more: Any,
) -> Table:
    """A table with a row per model, and the cell of each column made from the model."""
    rows = [(name(model), [cell(model) for cell in columns.values()]) for model in models]
    return Table(caption, ["Model", *columns], rows, **more)
