"""The report of an audit: a page from all sections, and their tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steadygrad import files
from steadygrad.arguments import public
from steadygrad.errors import UsageError
from steadygrad.report import blocks, run_folder
from steadygrad.report.png import Arrays
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import sections
from steadygrad.report.sections.headline_section import sentence
from steadygrad.report.wording import duration, threat
from steadygrad.values import take

if TYPE_CHECKING:
    from rich.table import Table

    from steadygrad.audit.schema import HardenSummary, Summary
    from steadygrad.audit.schema_people import People


@public
def write(folder: str | Path, out: str | Path | None = None) -> Path:
    """Draw the page of a run folder from what lies there, whole or not at all.

    Args:
        out: the page, by default `report/index.html` in the folder.

    Returns:
        The path of the page. Equal summaries give equal bytes.

    Raises:
        UsageError: the folder or its summary does not exist.
        Failure: a file is damaged, incomplete or of another schema, or the page cannot be written.
    """
    run = run_folder.read(folder)
    path = Path(folder) / "report" / "index.html" if out is None else Path(out)
    files.write_text(path, render(run.summary, run.arrays, run.hardened, run.people))
    return path


def _run(summary: Any, arrays: Any, hardened: Any, people: Any = None) -> Run:
    """What a page is drawn from, of summaries as they are or as plain data."""
    from steadygrad.audit.schema import HardenSummary, Summary
    from steadygrad.audit.schema_people import People

    said = None if people is None else _read("people", people, People)
    after = None if hardened is None else _read("hardened", hardened, HardenSummary)
    return Run(_read("summary", summary, Summary), take("arrays", arrays, Arrays), after, said)


def _read(name: str, value: Any, kind: Any) -> Any:
    from pydantic import ValidationError

    if not isinstance(value, Mapping):
        return take(name, value, kind)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{name} is not what an audit wrote: {where}: {first['msg']}") from None


def render(
    summary: Summary, arrays: Arrays, hardened: HardenSummary | None = None, people: People | None = None
) -> str:
    """The page of a summary and its arrays (docs/summary.md), of a hardening and of what people said, as HTML text."""
    run = _run(summary, arrays, hardened, people)
    summary = run.summary
    data, names = summary.data, ", ".join(model.name for model in summary.models)
    heading = names if len(summary.models) == 1 else f"{len(summary.models)} models"
    made = summary.created.replace("T", " ").replace("Z", " UTC").replace("+00:00", " UTC")
    samples = f"{data.samples:,} {'' if data.samples == data.available else f'of {data.available:,} '}samples"
    facts = [
        ("Models", names),
        ("Data", f"{data.name}, {data.split}: {samples}, {len(data.classes)} classes, "
                 f"{' × '.join(map(str, data.shape))}"),
        *([("Prepared", "; ".join(data.notes))] if data.notes else []),
        ("Threat", threat(summary.threat)),
        ("Made", f"{made}, in {duration(summary.seconds)}"),
    ]  # fmt: skip
    drawn = [(section, section.blocks(run)) for section in sections()]
    page = blocks.Page(
        title=f"Robustness audit: {names} on {data.name}",
        kicker="Robustness audit",
        heading=f"{heading} on {data.name}",
        lede=sentence(summary),
        facts=facts,
        sections=[blocks.Section(s.title, found, s.name, s.short) for s, found in drawn if found],
        source=f"summary.json, schema {summary.schema_}",
        version=summary.version,
    )
    return blocks.render(page)


def tables(summary: Summary, hardened: HardenSummary | None = None) -> list[Table]:
    """The tables of all sections that have one: the headline first, or before it what a hardening changed."""
    run = _run(summary, {}, hardened)
    found = [section.terminal(run) for section in sections()]
    return [table for table in found if table is not None]
