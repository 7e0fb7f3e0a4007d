"""The tables of a report for a Rich console."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from steadygrad.report.blocks import Cell, Inline

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def listed(
    columns: Sequence[str],
    rows: Iterable[Sequence[Inline | Cell]],
    title: str | None = None,
    words: tuple[int, ...] = (0, 1),
    stacked: bool = False,
) -> Table:
    """A table whose columns in `words` are text, all others numbers; equal first cells stand once.

    Intervals stand beside their numbers, or below them where the table is `stacked`, for long ones.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # No markup: a name such as "[red]" is printed as it is.
    built = Table(title=None if title is None else Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        number = place not in words
        built.add_column(Text(name), justify="right" if number else "left", no_wrap=number, overflow="fold")
    last: Inline | Cell | None = None
    for row in rows:
        built.add_row(*(_text("" if place == 0 and cell == last else cell, stacked) for place, cell in enumerate(row)))
        last = row[0]
    return built


def _text(cell: Inline | Cell, stacked: bool) -> Text:
    from rich.text import Text

    if isinstance(cell, str):
        return Text(cell)
    if cell.good is not None:
        return Text(f"{'✓' if cell.good else '✗'} {cell.text}", style="green" if cell.good else "red")
    # Intervals are padded to their longest form, so that the numbers of a column stand under each other.
    text = cell.text.striptags() if isinstance(cell.text, Markup) else cell.text
    beside = f"{text}\n{cell.below}" if stacked else f"{text} {cell.below:<13}"
    text = beside if cell.below else text
    return Text(text, style="strike dim" if cell.struck else "bold" if "main" in cell.kind else "")
