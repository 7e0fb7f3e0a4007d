"""Before and after a hardening: the paired differences, and how the model was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steadygrad.report.blocks import Block, Cell, Inline, Row, Table, Text
from steadygrad.report.cells import ranged, share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.terminal import listed
from steadygrad.report.wording import number

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from steadygrad.audit.schema import FurtherChange, HardenSummary, Training

_STYLES = {"better": "good", "worse": "bad", "refuted": "bad", "too few": "none", "not shown": "none"}
_FURTHER = (
    " So are those of maps (cosine distance to the farthest one found) and of neurons (change relative to their "
    "output, a mean over layers)."
)


def blocks(run: Run) -> list[Block]:
    """The verdict, the table of changes, and the training."""
    if run.hardened is None:
        return []
    text = run.hardened.text
    return [
        Text(text[:1].upper() + text[1:], f"{_STYLES[run.hardened.outcome]} verdict"),
        Table(
            "The same images before and after; the difference is paired, image by image. In brackets the 95 % "
            "interval. It is about these images and this one training: another seed may differ.",
            ["Measure", "Before", "After", "Difference"],
            changes(run.hardened),
            style="stacked",
        ),
        Text(
            f"{training(run.hardened.training)} The difference of the smallest changes is the median of the images' "
            "own differences, not that of the two medians."
            f"{_FURTHER if run.hardened.further else ''}",
            "note",
        ),
    ]


def changes(found: HardenSummary) -> list[Row]:
    """Each measure before and after, and the paired difference."""
    sides, gap = (found.before, found.after), found.difference
    medians = [side.median_distance for side in sides]
    far = [Cell("beyond reach" if median is None else number(median)) for median in medians]
    return [
        ("clean accuracy", [*(share(side.clean) for side in sides), ranged(gap["clean"], "+.1f", 100, " points")]),
        ("robust accuracy", [*(share(side.robust) for side in sides), ranged(gap["robust"], "+.1f", 100, " points")]),
        ("median smallest change", [*far, ranged(gap["distance"], "+.3g")]),
        *((row.name, _further(row)) for row in found.further),
    ]


def _further(row: FurtherChange) -> list[Cell]:
    if row.difference is None:
        return [Cell("–"), Cell("–"), Cell(f"not measured: {row.refused}", kind="words")]
    sides = [Cell("beyond reach" if side is None else number(side)) for side in (row.before, row.after)]
    return [*sides, ranged(row.difference, "+.3g")]


def training(found: Training) -> str:
    """How the model was trained, in a sentence."""
    settings = ", ".join(f"{k} = {_in_words(v)}" for k, v in found.defense.items() if k != "name")
    return (
        f"Fine-tuned with {found.defense['name']}{f' ({settings})' if settings else ''} on {found.samples:,} samples; "
        f"epoch {found.chosen_epoch} of {found.epochs} was chosen on {found.validation_samples:,} others."
    )


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("name", value))
    return " + ".join(map(_in_words, value)) if isinstance(value, list) else str(value)


def changes_table(found: HardenSummary) -> RichTable:
    """The same changes for a Rich console."""
    rows: list[list[Inline | Cell]] = [[name, *cells] for name, cells in changes(found)]
    return listed(["", "before", "after", "difference"], rows, words=(0,), stacked=True)


def terminal(run: Run) -> RichTable | None:
    """The changes, where there was a hardening."""
    return None if run.hardened is None else changes_table(run.hardened)


SECTION = ReportSection(0, "hardened", "Before and after", "Before and after hardening", "harden", blocks, terminal)
