"""How a model takes noise and common corruptions, which nobody aimed at it."""

from __future__ import annotations

from steadygrad.report.blocks import Block, Cell, Row, Table
from steadygrad.report.cells import named, ranged, share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import budget, percent

__all__ = ["SECTION"]


def blocks(run: Run) -> list[Block]:
    """A table of noise, and one of corruptions by kind and severity, where they were measured."""
    models = run.summary.models
    found: list[Block] = []
    if noisy := [(model, model.noise) for model in models if model.noise is not None]:
        size = f"uniform noise of ± {budget(noisy[0][1].eps)}, {noisy[0][1].draws} draws each"
        found.append(
            Table(
                f"Change of the loss under {size}, per unit of the noise: the mean over the checked samples of "
                "|loss(x) − loss(x′)| / ‖x − x′‖∞, with its 95 % interval. Smaller is steadier; an estimate.",
                ["Model", "Noise insensitivity"],
                [(named(model), [ranged(noise.insensitivity)]) for model, noise in noisy],
            )
        )
    for model in models:
        if model.corruptions is not None:
            found.append(_table(model.name, model.corruptions))
    return found


def _table(name: str, found: object) -> Table:
    from steadygrad.audit.schema import Corruptions

    assert isinstance(found, Corruptions)
    kinds = dict.fromkeys(row.corruption for row in found.rows)
    severities = sorted({row.severity for row in found.rows})
    rates = {(row.corruption, row.severity): row.accuracy for row in found.rows}
    rows: list[Row] = []
    for kind in kinds:
        cells = [rates.get((kind, severity)) for severity in severities]
        rows.append((kind.replace("_", " "), [share(c, shade=c.value) if c else Cell("–") for c in cells]))
    return Table(
        f"{name}: accuracy under common corruptions by severity; the mean error is {percent(found.mean_error)}.",
        ["Corruption", *map(str, severities)],
        rows,
        style="stacked",
    )


SECTION = ReportSection(
    55, "corruptions", "Noise", "Noise and corruptions", ("models.noise", "models.corruptions"), blocks
)
