"""Before and after a hardening: the paired differences, and how the model was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steadygrad.report import wording
from steadygrad.report.blocks import Block, Cell, Row, Table, Text
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from steadygrad.audit.schema import HardenSummary, Training
    from steadygrad.audit.schema_values import Difference

__all__ = ["SECTION", "changes", "changes_table", "training"]

_STYLES = {"better": "good", "worse": "bad", "not trustworthy": "bad", "not shown": "none"}


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
            "own differences, not that of the two medians.",
            "note",
        ),
    ]


def changes(found: HardenSummary) -> list[Row]:
    """Each measure before and after, and the paired difference."""
    rows: list[Row] = []
    for name in ("clean", "robust"):
        sides = [getattr(side, name) for side in (found.before, found.after)]
        cells = [Cell(wording.percent(side.value), wording.interval(side)) for side in sides]
        rows.append((f"{name} accuracy", [*cells, _signed(getattr(found.difference, name), 100, ".1f", " points")]))
    medians = [side.median_distance for side in (found.before, found.after)]
    cells = [Cell("beyond reach" if m is None else wording.number(m)) for m in medians]
    rows.append(("median smallest change", [*cells, _signed(found.difference.distance, 1, ".3g", "")]))
    return rows


def _signed(difference: Difference, scale: float, form: str, unit: str) -> Cell:
    value, low, high = (
        "beyond" if end is None else format(scale * end, "+" + form)
        for end in (difference.value, difference.low, difference.high)
    )
    return Cell(value + unit, f"[{low}, {high}]")


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
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    built = RichTable(box=SIMPLE_HEAD)
    for title in ("", "before", "after", "difference"):
        built.add_column(title, justify="right" if title else "left")
    for name, cells in changes(found):
        built.add_row(name, *(f"{cell.text}\n{cell.below}".strip() for cell in cells))
    return built


def terminal(run: Run) -> RichTable | None:
    """The changes, where there was a hardening."""
    return None if run.hardened is None else changes_table(run.hardened)


SECTION = ReportSection(0, "hardened", "Before and after", "Before and after hardening", ("harden",), blocks, terminal)
