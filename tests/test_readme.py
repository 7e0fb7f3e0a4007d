"""The lines of the README work one after the other, from top to bottom, in a fresh clone."""

from __future__ import annotations

import runpy
import shlex
import shutil
from pathlib import Path

import pytest

from cli.commands import done
from test_docs import ROOT, blocks


@pytest.mark.slow
@pytest.mark.timeout(1500)  # under two minutes where nothing else runs
def test_the_lines_of_the_readme_work_from_top_to_bottom(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEADYGRAD_DATA", raising=False)
    text = (ROOT / "README.md").read_text("utf-8")
    lines = [line for _, code in blocks(text, "", "sh") for line in code.splitlines() if not line.startswith("make ")]
    assert len(lines) >= 8
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        if program == "python":
            monkeypatch.setattr("sys.argv", words)
            runpy.run_path(words[0], run_name="__main__")
        else:
            assert program == "steadygrad"
            done(*words)
    for _, code in blocks(text, "python"):
        exec(compile(code, "README.md", "exec"), {})
    assert Path("runs/harder/report/index.html").is_file()
