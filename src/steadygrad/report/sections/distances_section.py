"""The smallest changes that were found, and the relative size of DeepFool's."""

from __future__ import annotations

from steadygrad.report.blocks import Block, Cell, Row, Table
from steadygrad.report.cells import named, plain, share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import distance, norm

__all__ = ["SECTION"]


def blocks(run: Run) -> list[Block]:
    """A table of each, where it was measured."""
    return [table for table in (_smallest(run), _relative(run)) if table.rows]


def _smallest(run: Run) -> Table:
    rows: list[Row] = []
    searches: dict[str, None] = {}
    for model in run.summary.models:
        if (found := model.distances) is not None:
            searches[found.attack] = None
            cells = []
            for _, row in found.quantiles:
                cells.append(Cell(*distance(row, found.limit), struck=not model.verdict.trustworthy))
            rows.append((named(model), [*cells, Cell(f"{found.censored:,} of {found.count:,}")]))
    return Table(
        f"Size ({norm(run.summary.threat.norm)}) of the smallest change that turns the prediction, of the samples that "
        "were right before: the share in the head lies at or below. In brackets the 95 % interval by order statistics. "
        "A number is an upper bound; “beyond” means that nothing was found for those samples at any size. Search: "
        f"{', '.join(searches)}, or what the attacks above found nearer.",
        ["Model", "5 %", "25 %", "half", "75 %", "95 %", "Nothing found"],
        rows,
        style="stacked",
    )


def _relative(run: Run) -> Table:
    rows: list[Row] = []
    for model in run.summary.models:
        if (found := model.rho2) is not None:
            struck = not model.verdict.trustworthy
            cells = [plain(v, ".3f", struck=struck) if v else share(None) for v in (found.pixels, found.centered)]
            rows.append((named(model), [*cells, share(found.turned)]))
    return Table(
        "ρ₂: mean of the ℓ2 norm of DeepFool’s change over that of the input, all samples, with its 95 % interval; "
        "centered: over that of the input minus the mean training image. The two scales do not compare with each "
        "other; published MNIST figures are of the centered one. An estimate, and one of little worth where few "
        "predictions turned.",
        ["Model", "ρ₂, pixels", "ρ₂, centered", "Predictions turned"],
        rows,
    )


SECTION = ReportSection(
    30, "distances", "Distances", "The smallest changes found", ("models.distances", "models.rho2"), blocks
)
