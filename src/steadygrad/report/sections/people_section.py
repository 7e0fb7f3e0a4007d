"""What people said of the adversarial images and maps, where a study asked them."""

from __future__ import annotations

from steadygrad.report.blocks import Block, Heading, Text
from steadygrad.report.people import facts, parts, sentence
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection


def blocks(run: Run) -> list[Block]:
    """The study's result, and each of its parts below a heading."""
    if run.people is None:
        return []
    told = ", ".join(f"{name.lower()}: {text}" for name, text in facts(run.people))
    found: list[Block] = [Text(sentence(run.people)), Text(f"{run.people.title} ({told}).", "note")]
    for part in parts(run.people, inner=True):
        found += [Heading(part.title), *part.blocks]
    return found


SECTION = ReportSection(95, "people", "People", "What people said", "people", blocks)
