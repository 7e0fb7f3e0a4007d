"""The tables of a report for a Rich console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["listed"]


def listed(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first two columns are text and whose others are numbers; equal first cells stand once."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    built = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        built.add_column(name, justify="left" if place < 2 else "right", no_wrap=place > 1, overflow="fold")
    last = None
    for row in rows:
        built.add_row(*(Text("" if place == 0 and cell == last else cell) for place, cell in enumerate(row)))
        last = row[0]
    return built
