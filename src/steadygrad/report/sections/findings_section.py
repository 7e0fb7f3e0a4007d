"""What to know before the numbers are read: how a model was taken, and signs that a number may be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadygrad.report.blocks import Block, Cell, Table
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.terminal import listed

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_COLUMNS = ("Model", "About", "Found")


def _rows(run: Run) -> list[tuple[str, list[Cell]]]:
    return [
        (model.name, [Cell(f"{'⚠ ' if found.warning else ''}{found.about}", kind="text"), Cell(found.text)])
        for model in run.summary.models
        for found in model.findings
    ]


def blocks(run: Run) -> list[Block]:
    """A table, where there is something to know."""
    rows = _rows(run)
    caption = "How the models were taken, and signs (⚠) that a number may be wrong though every check passed."
    return [Table(caption, list(_COLUMNS), rows, words=(0, 1))] if rows else []


def terminal(run: Run) -> RichTable | None:
    """The same for a Rich console."""
    rows: list[list[str | Cell]] = [[name, *cells] for name, cells in _rows(run)]
    return listed([name.lower() for name in _COLUMNS], rows, words=(0, 1, 2)) if rows else None


SECTION = ReportSection(12, "findings", "To know first", "To know first", "models.findings", blocks, terminal)
