"""The papers as runnable experiments: trained, measured, and put next to the published numbers."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from steadygrad.errors import unknown_name
from steadygrad.papers import paper
from steadygrad.papers.paper import Paper
from steadygrad.papers.paper import Request as Request
from steadygrad.run_folders import read_record

_MODULES = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]

PAPERS: dict[str, Paper] = {
    module.PAPER.name: module.PAPER for module in _MODULES if isinstance(getattr(module, "PAPER", None), Paper)
}
"""The papers by name: every file here that declares a `PAPER`."""


def reproduce(name: str, request: Request) -> dict[str, Any]:
    """Reproduce a paper; returns the summary that is also written to the run folder.

    Raises:
        UsageError: no such paper, data, model or scale, or a folder of another run.
    """
    if name not in PAPERS:
        raise unknown_name("paper", name, PAPERS)
    return paper.reproduce(PAPERS[name], request)


def redraw(folder: str | Path) -> dict[str, Any]:
    """Write summary and page of a run folder again, from its configuration and tables; returns the summary.

    Raises:
        UsageError: there is no run of a paper.
    """
    name = str(read_record(folder).get("paper"))
    if name not in PAPERS:
        raise unknown_name("paper", name, PAPERS)
    return paper.draw(PAPERS[name], Path(folder))
