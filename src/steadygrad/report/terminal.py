"""The headline for the terminal: the numbers of the page, as aligned text or as a Rich table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadygrad.report.reading import Summary
from steadygrad.report.wording import NOT_MEASURED, interval, percent, trusted, verdict

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["headline", "table"]

_COLUMNS = ("model", "clean accuracy", "robust accuracy", "verdict")


def headline(summary: Summary) -> list[str]:
    """The headline table as aligned lines of text, the first with the column names."""
    rows = [list(_COLUMNS), *_rows(summary)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    return [f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows]


def table(summary: Summary) -> Table:
    """The headline table for a Rich console; a refused number is struck out, and its reason stands beside it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    built = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in zip(_COLUMNS, ("left", "right", "right", "left"), strict=True):
        built.add_column(name, justify=justify, no_wrap=name.endswith("accuracy"))  # type: ignore[arg-type]
    for model, row in zip(summary["models"], _rows(summary), strict=True):
        stands = trusted(model)
        # Text, not markup: a name such as "[red]" is printed as it is.
        built.add_row(
            Text(row[0]),
            Text(row[1]),
            Text(row[2], style="bold" if stands else "strike dim"),
            Text(row[3], style="green" if stands else "red"),
        )
    return built


def _rows(summary: Summary) -> list[list[str]]:
    return [
        [str(model["name"]), _aligned(model["clean"]), _aligned(model["robust"]), verdict(model)]
        for model in summary["models"]
    ]


def _aligned(value: dict[str, float] | None) -> str:
    # The interval is padded to its longest form, so that the numbers of a column stand under each other.
    return NOT_MEASURED if value is None else f"{percent(value['value'])} {interval(value):<13}"
