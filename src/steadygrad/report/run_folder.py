"""What a page is drawn from: the summary, its arrays, and what a hardening changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from steadygrad.report.png import Arrays

if TYPE_CHECKING:
    from steadygrad.audit.schema import HardenSummary, Summary


@dataclass(frozen=True)
class Run:
    """All that a page is drawn from; `hardened` is None for a plain audit."""

    summary: Summary
    arrays: Arrays = field(default_factory=dict)
    hardened: HardenSummary | None = None


def read(folder: str | Path) -> Run:
    """Everything about a run, computed from the tables in its folder.

    Raises:
        UsageError: there is no run in the folder.
        Failure: a table or `harden.json` is damaged, incomplete or of another schema.
    """
    from steadygrad.audit.audit import read as read_audit
    from steadygrad.audit.schema import HardenSummary, Summary

    found = read_audit(folder)
    hardened = HardenSummary.read(folder) if (Path(folder) / HardenSummary.FILE).is_file() else None
    return Run(Summary.model_validate(found.summary), found.arrays, hardened)
