"""Transfer: what points made against one model do to another."""

from __future__ import annotations

from steadygrad.report.blocks import Block, Table, Text
from steadygrad.report.cells import named, share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import budget, norm


def blocks(run: Run) -> list[Block]:
    """The matrix as a heat map, its diagonal in frames."""
    found = run.summary.transfer
    if found is None:
        return []
    rows = []
    for i, (name, model) in enumerate(zip(found.names, run.summary.models, strict=True)):
        own = "white-box" if model.gradients else "blind"
        cells = [share(v, shade=v.value, framed=i == j) for j, v in enumerate(found.accuracy[i])]
        cells[i] = share(white := found.accuracy[i][i], shade=white.value, framed=True, note=own)
        rows.append((name, cells))
    caption = (
        f"Accuracy of the target (column) on points made against the source (row) by {found.attack}, "
        f"{norm(run.summary.threat.norm)} ≤ {budget(found.eps)}. On the framed diagonal a model is attacked itself; "
        "all else is weak evidence: a low number shows damage, a high one shows nothing."
    )
    return [Text(found.note), Table(caption, ["Source", *map(named, run.summary.models)], rows, style="stacked")]


SECTION = ReportSection(70, "transfer", "Transfer", "Transfer between models", "transfer", blocks)
