"""What a page is drawn from: the summary, its arrays, what a hardening changed, and what people said."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from steadygrad.report.png import Arrays

if TYPE_CHECKING:
    from steadygrad.audit.schema import HardenSummary, Summary
    from steadygrad.audit.schema_people import People


@dataclass(frozen=True)
class Run:
    """All that a page is drawn from; `hardened` is None for a plain audit, `people` where nobody was asked."""

    summary: Summary
    arrays: Arrays = field(default_factory=dict)
    hardened: HardenSummary | None = None
    people: People | None = None


def read(folder: str | Path) -> Run:
    """Everything about a run, computed from the tables in its folder.

    Raises:
        UsageError: there is no run in the folder.
        Failure: a table, `harden.json` or `people.json` is damaged, incomplete or of another schema.
    """
    from steadygrad.audit.audit import read as read_audit
    from steadygrad.audit.schema import HardenSummary, Summary
    from steadygrad.audit.schema_people import People

    found = read_audit(folder)
    hardened = HardenSummary.read(folder) if (Path(folder) / HardenSummary.FILE).is_file() else None
    people = People.read(folder) if (Path(folder) / People.FILE).is_file() else None
    return Run(Summary.model_validate(found.summary), found.arrays, hardened, people)
