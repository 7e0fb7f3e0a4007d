"""The page of a hardening begins with the comparison, and only with one that is whole."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from report.fake_summary import full
from steadygrad import report
from steadygrad.audit.schema import HardenSummary, Summary
from steadygrad.errors import Failure
from steadygrad.report import run_folder
from steadygrad.report.sections import hardened_section

SHARE = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 100}
SIDE = {
    "clean": SHARE,
    "robust": SHARE,
    "median_distance": 0.11,
    "distances": 100,
    "verdict": {"state": "holds", "text": "fine"},
}
CHANGE = {"value": 0.125, "low": -0.05, "high": 0.3, "count": 100, "gained": 20, "lost": 7, "p": 0.02}
SUMMARY = full()[0]
FOUND = {
    **{key: SUMMARY[key] for key in ("schema", "version", "created", "machine", "command")},
    "model": {"name": "mlp", "file": "mlp.safetensors", "hardened": "run/model.safetensors"},
    **{key: SUMMARY[key] for key in ("threat", "data")},
    "training": {
        "defense": {"name": "sum", "parts": [{"name": "pgd", "steps": 3}, {"name": "parseval"}]},
        "settings": {"epochs": 5},
        "seed": 0,
        "samples": 1200,
        "validation_samples": 120,
        "epochs": 5,
        "chosen_epoch": 4,
        "history": [{"epoch": 1, "loss": 0.5}],
    },
    "outcome": "not shown",
    "text": "no difference",
    "before": SIDE,
    "after": {**SIDE, "median_distance": None},
    "difference": {"clean": CHANGE, "robust": {**CHANGE, "value": -0.125}, "distance": {**CHANGE, "high": None}},
    "further": [],
}


def test_a_plain_audit_has_none(audited):
    assert run_folder.read(audited).hardened is None
    assert 'id="hardened"' not in report.write(audited).read_text(encoding="utf-8")


def test_the_changes_are_in_words_with_what_was_beyond_reach():
    found = HardenSummary.model_validate(FOUND)
    rows = {name: [(cell.text, cell.below) for cell in cells] for name, cells in hardened_section.changes(found)}
    clean, robust, distance = rows.values()
    assert (clean[0], clean[2]) == (("50.0 %", "[40.0, 60.0]"), ("+12.5 points", "[-5.0, +30.0]"))
    assert robust[2][0] == "-12.5 points"
    assert (distance[1], distance[2]) == (("beyond reach", ""), ("+0.125", "[-0.05, beyond]"))
    assert hardened_section.training(found.training) == (
        "Fine-tuned with sum (parts = pgd + parseval) on 1,200 samples; epoch 4 of 5 was chosen on 120 others."
    )


def test_the_page_begins_with_it(audited):
    HardenSummary.model_validate(FOUND).write(audited / "harden.json")
    text = report.write(audited).read_text(encoding="utf-8")
    assert text.index('<section id="hardened"') < text.index('<section id="result"')
    assert '<p class="none verdict">No difference</p>' in text
    assert '<a href="#hardened">Before and after</a>' in text


def test_the_terminal_says_the_same():
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(report.tables(Summary.model_validate(SUMMARY), HardenSummary.model_validate(FOUND))[0])
    printed = console.file.getvalue()
    for part in ("clean accuracy", "50.0 %", "+12.5 points", "[-5.0, +30.0]", "beyond reach"):
        assert part in printed


def test_a_damaged_comparison_is_refused(audited):
    (audited / "harden.json").write_text("{", encoding="utf-8")
    with pytest.raises(Failure, match="run the hardening again"):
        report.write(audited)
