"""Transfer: what points made against one model do to another."""

from __future__ import annotations

from steadygrad.report.blocks import Block, Table, Text
from steadygrad.report.cells import named, share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import budget, norm

__all__ = ["SECTION"]


def blocks(run: Run) -> list[Block]:
    """The matrix as a heat map, its diagonal in frames."""
    found = run.summary.transfer
    if found is None:
        return []
    rows = []
    for i, (name, row) in enumerate(zip(found.names, found.accuracy, strict=True)):
        cells = [
            share(cell, shade=cell.value, framed=i == j, note="white-box" if i == j else "")
            for j, cell in enumerate(row)
        ]
        rows.append((name, cells))
    return [
        Text(found.note),
        Table(
            f"Accuracy of the target (column) on points made against the source (row) by {found.attack}, "
            f"{norm(run.summary.threat.norm)} ≤ {budget(found.eps)}. The framed diagonal is white-box; all else is "
            "weak evidence: a low number shows damage, a high one shows nothing.",
            ["Source", *(named(model) for model in run.summary.models)],
            rows,
            style="stacked",
        ),
    ]


SECTION = ReportSection(60, "transfer", "Transfer", "Transfer between models", ("transfer",), blocks)
