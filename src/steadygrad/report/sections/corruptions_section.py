"""How a model takes noise and common corruptions, which nobody aimed at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadygrad.report.blocks import Block, Cell, Table
from steadygrad.report.cells import by_model, ranged, share
from steadygrad.report.run_folder import Run
from steadygrad.report.wording import budget, percent, spaced

if TYPE_CHECKING:
    from steadygrad.audit.schema import Corruptions


def blocks(run: Run) -> list[Block]:
    """A table of noise, and one of corruptions by kind and severity, where they were measured."""
    models = run.summary.models
    found: list[Block] = []
    if noises := [model.noise for model in models if model.noise is not None]:
        caption = (
            f"Change of the loss under uniform noise of ± {budget(noises[0].eps)}, {noises[0].draws} draws each, per "
            "unit of the noise: the mean over the checked samples of |loss(x) − loss(x′)| / ‖x − x′‖∞, with its 95 % "
            "interval. Smaller is steadier; an estimate."
        )
        noisy = [model for model in models if model.noise is not None]
        found = [by_model(noisy, caption, {"Noise insensitivity": lambda m: ranged(m.noise.insensitivity)})]
    return [*found, *(_table(m.name, m.corruptions) for m in models if m.corruptions is not None)]


def _table(name: str, found: Corruptions) -> Table:
    severities = sorted({row.severity for row in found.rows})
    rates = {(row.corruption, row.severity): row.accuracy for row in found.rows}
    rows = []
    for kind in dict.fromkeys(row.corruption for row in found.rows):
        cells = [rates.get((kind, severity)) for severity in severities]
        rows.append((spaced(kind), [share(c, shade=c.value) if c else Cell("–") for c in cells]))
    caption = f"{name}: accuracy under common corruptions by severity; the mean error is {percent(found.mean_error)}."
    return Table(caption, ["Corruption", *map(str, severities)], rows, style="stacked")
