"""How a model takes common corruptions, which nobody aimed at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadygrad.report.blocks import Block, Cell, Table
from steadygrad.report.cells import share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import percent, spaced

if TYPE_CHECKING:
    from steadygrad.audit.schema import Corruptions


def blocks(run: Run) -> list[Block]:
    """A table of each model by kind and severity, where they were measured."""
    return [_table(m.name, m.corruptions) for m in run.summary.models if m.corruptions is not None]


def _table(name: str, found: Corruptions) -> Table:
    severities = sorted({row.severity for row in found.rows})
    rates = {(row.corruption, row.severity): row.accuracy for row in found.rows}
    rows = []
    for kind in dict.fromkeys(row.corruption for row in found.rows):
        cells = [rates.get((kind, severity)) for severity in severities]
        rows.append((spaced(kind), [share(c, shade=c.value) if c else Cell("–") for c in cells]))
    caption = f"{name}: accuracy under common corruptions by severity; the mean error is {percent(found.mean_error)}."
    return Table(caption, ["Corruption", *map(str, severities)], rows, style="stacked")


SECTION = ReportSection(62, "corruptions", "Corruptions", "Common corruptions", "models.corruptions", blocks)
