"""`steadygrad report`: draw the page of a run again from its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steadygrad.cli.common import Debug, Json, emit, say
from steadygrad.errors import UsageError


def report(
    run: Annotated[
        Path, typer.Argument(help="Run folder of audit, harden, demo or reproduce.", metavar="RUN", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page to write.", metavar="FILE", show_default="in the run folder")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the page of a run again, from its tables; nothing is measured.

    Examples:

      steadygrad report runs/audit

      steadygrad report runs/audit --out page.html
    """
    if out is not None and (out.is_dir() or out.suffix != ".html"):
        raise UsageError(f"--out is the page to write, such as page.html, got {str(out)!r}")
    page = _drawn(run, out)
    if json:
        emit({"report": str(page)})
    else:
        say(f"report: {page}")


def _drawn(run: Path, out: Path | None) -> Path:
    from steadygrad import papers, report
    from steadygrad.files import write_text
    from steadygrad.run_folders import RECORD, audit_in, read_record

    config = read_record(run) if (run / RECORD).is_file() else {}
    if "paper" in config:
        papers.redraw(run)
        page = run / "index.html"
        if out is not None:
            write_text(out, page.read_text(encoding="utf-8"))
        return page if out is None else out
    if "classifier" in config:
        raise UsageError(f"{run} holds a training, which has no page: audit it first (steadygrad audit {run})")
    return report.write(audit_in(run), out)
