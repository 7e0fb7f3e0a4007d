"""How the loss of a model takes noise."""

from __future__ import annotations

from steadygrad.report.blocks import Block
from steadygrad.report.cells import by_model, ranged
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import budget

NAME = "noise_insensitivity"


def blocks(run: Run) -> list[Block]:
    """A table, where it was measured."""
    models = [model for model in run.summary.models if NAME in model.further]
    if not models:
        return []
    settings = models[0].further[NAME].settings
    caption = (
        f"Change of the loss under uniform noise of ± {budget(settings['eps'])}, {settings['draws']} draws each, per "
        "unit of the noise: the mean over the checked samples of |loss(x) − loss(x′)| / ‖x − x′‖∞, with its 95 % "
        "interval. Smaller is steadier; an estimate."
    )
    return [
        by_model(models, caption, {"Noise insensitivity": lambda m: ranged(m.further[NAME].means["insensitivity"])})
    ]


SECTION = ReportSection(61, "noise", "Noise", "Noise", "models.further", blocks)
