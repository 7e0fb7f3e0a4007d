"""The smallest changes that were found, and the relative size of DeepFool's."""

from __future__ import annotations

import functools
from typing import Any

from steadygrad.report.blocks import Block, Cell
from steadygrad.report.cells import borders_of, by_model, ranged, share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import between, norm, number

_QUANTILES = {"5 %": "0.05", "25 %": "0.25", "half": "0.5", "75 %": "0.75", "95 %": "0.95"}


def blocks(run: Run) -> list[Block]:
    """A table of each, where it was measured."""
    models = run.summary.models
    searches = ", ".join(dict.fromkeys(model.distances.attack for model in models if model.distances is not None))
    centered = any(model.rho2 is not None and model.rho2.centered is not None for model in models)
    about = (
        "; centered: over that of the input minus the mean training image. The two scales do not compare with each "
        "other; published MNIST figures are of the centered one"
    )
    tables = [
        by_model(
            [model for model in models if model.distances is not None],
            f"Size ({norm(run.summary.threat.norm)}) of the smallest change that turns the prediction, of the samples "
            "that were right before: the share in the head lies at or below. In brackets the 95 % interval by order "
            "statistics. A number is an upper bound; “beyond” means that nothing was found for those samples at any "
            f"size. Search: {searches}, or what the attacks above found nearer.",
            {
                **{title: functools.partial(_quantile, level) for title, level in _QUANTILES.items()},
                "Nothing found": lambda m: Cell(f"{m.distances.censored:,} of {m.distances.count:,}"),
            },
            style="stacked",
        ),
        by_model(
            [model for model in models if (found := borders_of(model)) is not None and found.distances is not None],
            "Size up to which every change is certified not to turn the prediction, of the same samples: a lower bound "
            "of the smallest change that does. In brackets the 95 % interval by order statistics.",
            {title: functools.partial(_certified, level) for title, level in _QUANTILES.items()},
            style="stacked",
        ),
        by_model(
            [model for model in models if model.rho2 is not None],
            "ρ₂: mean of the ℓ2 norm of DeepFool’s change over that of the input, all samples, with its 95 % interval"
            f"{about if centered else ''}. An estimate, and one of little worth where few predictions turned.",
            {
                "ρ₂, pixels": functools.partial(_relative, "pixels"),
                **({"ρ₂, centered": functools.partial(_relative, "centered")} if centered else {}),
                "Predictions turned": lambda m: share(m.rho2.turned),
            },
        ),
    ]
    return [table for table in tables if table.rows]


def _quantile(level: str, model: Any) -> Cell:
    found = model.distances.quantiles[level]
    value, ends = between(found.value, found.low, found.high)
    # What was not found lies beyond the limit.
    text = f"beyond {number(model.distances.limit)}" if found.value is None else value
    return Cell(text, ends, struck=model.verdict.state == "refuted")


def _certified(level: str, model: Any) -> Cell:
    borders = model.certified.borders
    return ranged(borders.distances.quantiles[level], struck=borders.cross)


def _relative(key: str, model: Any) -> Cell:
    found = getattr(model.rho2, key)
    return share(None) if found is None else ranged(found, struck=model.verdict.state == "refuted")


SECTION = ReportSection(
    30, "distances", "Distances", "The smallest changes found", "models.distances models.certified models.rho2", blocks
)
