"""The checks behind the verdicts, and what RobustBench asks of a defense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadygrad.report.blocks import Block, Cell, Folded, Row, Table, Text, mark, missing
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import number, spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steadygrad.audit.schema import Model

__all__ = ["SECTION"]


def blocks(run: Run) -> list[Block]:
    """The checks of each model, opened where one failed, and the table of RobustBench."""
    intro = "Each check looks for one way in which a robust accuracy can be an illusion. One failure is enough to "
    return [
        Text(f"{intro}refuse the number."),
        *(_checks(model) for model in run.summary.models),
        _eligible(run.summary.models),
    ]


def _checks(model: Model) -> Folded:
    rows: list[Row] = []
    for check in model.verdict.checks:
        outcome = {True: "passed", False: "failed", None: "not applicable"}[check.passed]
        cells = [Cell(mark(check.passed, outcome), kind="outcome"), Cell(number(check.value))]
        rows.append((spaced(check.name), [*cells, Cell(check.limit, kind="limit"), Cell(check.text)]))
    failed = sum(check.passed is False for check in model.verdict.checks)
    note = mark(not failed, f"{failed or 'none'} of {len(rows)} failed")
    head = ["Check", "Outcome", "Found", "Passes if", "Meaning"]
    table = Table(f"Checks of {model.name}", head, rows, words=(0, 2, 3))
    return Folded(model.name, [table], note, open=not model.verdict.trustworthy)


def _eligible(models: Sequence[Model]) -> Table:
    rows: list[Row] = []
    for model in models:
        cells = []
        for name, value in model.eligibility:
            text = missing("– not seen") if value is None else mark(value, "yes" if value else "no")
            draws = f"mean of {model.draws} draws attacked" if name == "deterministic" and model.draws > 1 else ""
            cells.append(Cell(text, note=draws, kind="text"))
        rows.append((model.name, cells))
    return Table(
        "What RobustBench asks of a defense before it is listed, as far as these checks can see.",
        ["Model", "Deterministic", "Gradients not zero", "No optimization in the forward"],
        rows,
        words=(0, 1, 2),
    )


SECTION = ReportSection(
    50,
    "checks",
    "Checks",
    "Checks behind the verdicts",
    ("models.verdict", "models.eligibility", "models.draws"),
    blocks,
)
