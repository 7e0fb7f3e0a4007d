"""`steadygrad report` draws the page of a run again, from its tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli.commands import AUDIT, done, refused


@pytest.mark.slow
def test_a_page_is_drawn_again(trained: Path) -> None:
    done("audit", trained, *AUDIT, "--out", "run")
    page = Path("run/report/index.html")
    before = page.read_bytes()
    page.unlink()
    Path("run/summary.json").unlink()
    assert done("report", "run").out == "report: run/report/index.html\n"
    assert page.read_bytes() == before
    page.unlink()
    found = json.loads(done("report", "run", "--out", "pages/mine.html", "--json").out)
    assert found == {"report": "pages/mine.html"}
    assert Path("pages/mine.html").read_bytes() == before
    assert not page.exists()
    # A folder like that of the demo, with the audit below it.
    shutil.move("run", "demo/audit")
    assert done("report", "demo").out == "report: demo/audit/report/index.html\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("report none", "there is no run of an audit at none"),
        ("report .", "there is no run of an audit at ."),
        ("report {trained}", "holds a training, which has no page: audit it first (steadygrad audit"),
        ("report . --out page", "--out is the page to write, such as page.html, got 'page'"),
        ("report . --out .", "--out is the page to write, such as page.html, got '.'"),
        ("report", "Missing argument"),
    ],
)
def test_no_run_no_page(line: str, words: str, trained: Path) -> None:
    assert words in refused(2, *line.format(trained=trained).split())
