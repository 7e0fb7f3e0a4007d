"""What is certified of smoothed classifiers, apart from all that attacks say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadygrad.report.blocks import Block, Cell, Table, Text
from steadygrad.report.cells import share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.terminal import listed
from steadygrad.report.wording import number, threat

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from steadygrad.audit.schema import Model


def blocks(run: Run) -> list[Block]:
    """How to read it, and a table for each smoothed model."""
    models = _smoothed(run)
    return [_note(run), *map(_table, models)] if models else []


def _smoothed(run: Run) -> list[Model]:
    return [model for model in run.summary.models if model.smoothed is not None]


def _note(run: Run) -> Text:
    return Text(
        "Certified is the smoothed classifier, which gives the class that the model beneath it gives most often under "
        "Gaussian noise; the model without noise is not. A sample counts where its class is right, the smoothed "
        "classifier does not abstain, and no change of an ℓ2 norm up to the radius alters it. What attacks, checks and "
        f"maps on this page are about ({threat(run.summary.threat)}) is its soft vote: the mean probabilities over a "
        "few fixed draws of the noise, which have a gradient. Where that soft vote was turned within a certified "
        "radius, it differs from the classifier that it stands for, and the certificate is what holds."
    )


def _table(model: Model) -> Table:
    found = model.smoothed
    assert found is not None
    caption = (
        f"{model.name}: σ = {number(found.sigma)}, {found.n0:,} draws choose the class, {found.n:,} estimate it; "
        f"each certificate is wrong with a probability of at most {number(found.alpha)}. In brackets the 95 % interval "
        f"over samples. The soft vote has {found.draws:,} draws."
    )
    rows = [(f"certified at ℓ2 {number(point.radius)}", [share(point.accuracy)]) for point in found.certified]
    within = f"certified within the threat (ℓ2 {number(found.reach)})"
    rows += [(within, [share(found.within)]), ("of these, soft votes turned", [Cell(f"{found.crossed:,}")])]
    rows.append(("abstained", [share(found.abstained)]))
    return Table(caption, ["Smoothed classifier", "Share of samples"], rows)


def terminal(run: Run) -> RichTable | None:
    """What is certified within the threat, for a Rich console."""
    rows = [
        (m.name, share(m.smoothed.within), share(m.smoothed.abstained))
        for m in _smoothed(run)
        if m.smoothed is not None
    ]
    return listed(["smoothed classifier", "certified", "abstained"], rows, words=(0,)) if rows else None


SECTION = ReportSection(
    15, "smoothed", "Smoothed", "Certified by randomized smoothing", "models.smoothed", blocks, terminal
)
