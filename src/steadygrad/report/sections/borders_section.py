"""Between two borders: what is certified of the samples that the attacks saw, and what is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadygrad.report.blocks import Block, Cell, Text
from steadygrad.report.cells import DASH, borders_of, by_model, share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.terminal import listed
from steadygrad.report.wording import threat

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from steadygrad.audit.schema import Model


def blocks(run: Run) -> list[Block]:
    """What is certified and what is open, where that was asked for, and why it is not known of other models."""
    models = run.summary.models
    known = [model for model in models if borders_of(model) is not None]
    refused = [(m.name, m.certified.refused) for m in models if m.certified is not None and m.certified.refused]
    found: list[Block] = []
    if known:
        caption = (
            "Robust accuracy lies between what is certified and what attacks left: samples for which bounds show that "
            f"no allowed change turns the prediction ({threat(run.summary.threat)}), and samples that no attack "
            "changed. The gap is the share of those of which neither is known. In brackets the 95 % interval."
        )
        found.append(
            by_model(
                known,
                caption,
                {
                    "Certified": _certified,
                    "Attacked": lambda m: share(m.robust, m.verdict.state != "refuted"),
                    "Gap": lambda model: share(model.certified.borders.gap),
                },
                style="headline",
            )
        )
    found += [Text(_counted(model), "note") for model in known]
    return found + [Text(f"{name}: nothing is certified, because {why}.", "note") for name, why in refused]


def _counted(model: Model) -> str:
    borders = borders_of(model)
    assert borders is not None
    states = (borders.attacked, "attacked"), (borders.certified, "certified"), (borders.open, "open")
    return f"{model.name}: {', '.join(f'{count:,} {state}' for count, state in states)} of {model.samples:,} samples."


def _certified(model: Model) -> Cell:
    borders = borders_of(model)
    return DASH if borders is None else share(borders.accuracy, not borders.cross)


def terminal(run: Run) -> RichTable | None:
    """Both borders for a Rich console."""
    rows = [
        (m.name, _certified(m), share(m.robust, m.verdict.state != "refuted"))
        for m in run.summary.models
        if m.certified is not None
    ]
    return listed(["between", "certified", "attacked"], rows, words=(0,)) if rows else None


SECTION = ReportSection(11, "borders", "Borders", "Certified and attacked", "models.certified", blocks, terminal)
