"""Code that is edited between two runs of the same command: what comes back is what the new code gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NET = """
import torch
from torch import nn
{before}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lin = nn.Linear(64, 10)
        {attribute}
    def forward(self, x): return {body}
def make(): return Net()
"""
PLAIN = {"before": "", "attribute": "", "body": "self.lin(x.flatten(1))"}
EDITS = {
    "its forward": (PLAIN, {**PLAIN, "body": "self.lin(1 - x.flatten(1)).flip(1)"}),
    "a function beside it": (
        {**PLAIN, "before": "def scaled(x): return x", "body": "scaled(self.lin(x.flatten(1)))"},
        {**PLAIN, "before": "def scaled(x): return x.flip(1)", "body": "scaled(self.lin(x.flatten(1)))"},
    ),
    "an activation that is an attribute": (
        {**PLAIN, "attribute": "self.act = lambda x: x", "body": "self.act(self.lin(x.flatten(1)))"},
        {**PLAIN, "attribute": "self.act = lambda x: x.flip(1)", "body": "self.act(self.lin(x.flatten(1)))"},
    ),
    "another file": (
        {**PLAIN, "before": "from helper import scaled", "body": "scaled(self.lin(x.flatten(1)))", "helper": "x"},
        {
            **PLAIN,
            "before": "from helper import scaled",
            "body": "scaled(self.lin(x.flatten(1)))",
            "helper": "x.flip(1)",
        },
    ),
}


def _write(folder: Path, parts: dict[str, str]) -> None:
    (folder / "nets.py").write_text(NET.format(**parts), encoding="utf-8")
    (folder / "helper.py").write_text(f"def scaled(x): return {parts.get('helper', 'x')}\n", encoding="utf-8")


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    start = "import sys; from steadygrad.cli import main; main(sys.argv[1:])"
    return subprocess.run([sys.executable, "-B", "-c", start, *arguments], cwd=folder, capture_output=True, text=True)


def _audit(folder: Path, out: str = "run") -> Any:
    ran = _run(
        folder, "audit", "nets:make", "--samples", "40", "--attack", "fgsm", "--checked", "4", "--gallery", "0",
        "--out", out, "--json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)["models"][0]["clean"]["value"]


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_an_audit_in_the_same_folder_measures_the_edited_model(edit: str, tmp_path: Path) -> None:
    old, new = EDITS[edit]
    _write(tmp_path, old)
    before = _audit(tmp_path)
    _write(tmp_path, new)
    after = _audit(tmp_path)
    assert after == _audit(tmp_path, "fresh")
    assert after != before


@pytest.mark.slow
def test_a_training_in_the_same_folder_is_refused_for_edited_code(tmp_path: Path) -> None:
    def train(out: str) -> subprocess.CompletedProcess[str]:
        settings = ("--model", "nets:make", "--epochs", "1", "--limit", "200")
        return _run(tmp_path, "train", *settings, "--out", out, "--json")

    _write(tmp_path, {**PLAIN, "body": "self.lin(0 * x.flatten(1))"})
    assert train("run").returncode == 0
    assert train("run").returncode == 0
    _write(tmp_path, PLAIN)
    edited = train("run")
    assert edited.returncode == 2
    assert "differs in: model code" in edited.stderr
