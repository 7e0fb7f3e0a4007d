"""The page of a study's answers."""

from __future__ import annotations

from steadygrad.audit.schema_people import People
from steadygrad.report import blocks
from steadygrad.report.people import facts, parts, sentence


def render(people: People) -> str:
    """The page as HTML text, which contains its style."""
    title = people.title or "A study"
    page = blocks.Page(
        title=f"What people said: {title}",
        kicker="Judgements of people",
        heading=title,
        lede=sentence(people),
        facts=facts(people),
        sections=parts(people),
        source=f"the table of answers, schema {people.schema_}",
        version=people.version,
    )
    return blocks.render(page)
