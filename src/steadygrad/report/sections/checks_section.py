"""The checks behind the verdicts, and what RobustBench asks of a defense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steadygrad.report.blocks import Block, Cell, Folded, Table, Text, mark, missing
from steadygrad.report.cells import by_model
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import number, spaced

if TYPE_CHECKING:
    from steadygrad.audit.schema import Model


def blocks(run: Run) -> list[Block]:
    """The checks of each model, opened where one failed, and the table of RobustBench; nothing without checks."""
    if not any(model.verdict.checks for model in run.summary.models):
        return []
    eligible = by_model(
        run.summary.models,
        "What RobustBench asks of a defense before it is listed, as far as these checks can see.",
        {
            "Deterministic": lambda m: _seen(
                m.eligibility["deterministic"], f"mean of {m.draws} draws attacked" if m.draws > 1 else ""
            ),
            "Gradients not zero": lambda m: _seen(
                m.eligibility["gradients"], "" if m.gradients else "none: searched blind only"
            ),
            "No optimization in the forward": lambda m: _seen(m.eligibility["no_optimization"]),
        },
        lambda model: model.name,
        words=(0, 1, 2),
    )
    intro = "Each check looks for one way in which a robust accuracy can be an illusion. One failure is enough to "
    return [Text(f"{intro}refuse the number."), *map(_checks, run.summary.models), eligible]


def _checks(model: Model) -> Folded:
    rows = []
    for check in model.verdict.checks:
        outcome = {True: "passed", False: "failed", None: "not applicable"}[check.passed]
        cells = [Cell(mark(check.passed, outcome), kind="outcome"), Cell(number(check.value))]
        rows.append((spaced(check.name), [*cells, Cell(check.limit, kind="limit"), Cell(check.text)]))
    failed = sum(check.passed is False for check in model.verdict.checks)
    note = mark(not failed, f"{failed or 'none'} of {len(rows)} failed")
    head = ["Check", "Outcome", "Found", "Passes if", "Meaning"]
    table = Table(f"Checks of {model.name}", head, rows, words=(0, 2, 3))
    return Folded(model.name, [table], note, open=model.verdict.state == "refuted")


def _seen(value: bool | None, note: str = "") -> Cell:
    text: Any = missing("– not seen") if value is None else mark(value, "yes" if value else "no")
    return Cell(text, note=note, kind="text")


SECTION = ReportSection(
    50,
    "checks",
    "Checks",
    "Checks behind the verdicts",
    "models.verdict models.eligibility models.draws models.gradients",
    blocks,
)
