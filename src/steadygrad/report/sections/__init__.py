"""The sections of an audit's report, a file each: what it shows on the page and in the terminal.

A file `<name>_section.py` here with a `SECTION` is a section; nothing else has to be changed for a new one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steadygrad.report.blocks import Block
from steadygrad.report.run_folder import Run

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class ReportSection:
    """A section.

    Args:
        place: sections stand in rising order of it.
        name: its id on the page; `short` is its name in the contents, `title` its heading.
        parts: what it draws, as keys of the summary: "transfer", "models.curve", or "harden" for `harden.json`.
        blocks: what it shows; without blocks the section is left out.
        terminal: what is printed of it, or None for nothing.
    """

    place: int
    name: str
    short: str
    title: str
    parts: str
    blocks: Callable[[Run], Sequence[Block]]
    terminal: Callable[[Run], Table | None] = lambda run: None


def sections() -> list[ReportSection]:
    """All sections, in their order."""
    names = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)]
    found: list[ReportSection] = [importlib.import_module(name).SECTION for name in names]
    return sorted(found, key=lambda section: section.place)
