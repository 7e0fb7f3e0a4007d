"""The page of a hardening begins with the comparison, and only with one that is whole."""

from __future__ import annotations

import json

import pytest

from report.fake_summary import full
from steadygrad.errors import Failure
from steadygrad.report import hardened

SHARE = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 100}
SIDE = {
    "clean": SHARE,
    "robust": SHARE,
    "median_distance": 0.11,
    "distances": 100,
    "verdict": {"trustworthy": True, "text": "fine"},
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
}


def write(folder, found):
    (folder / "harden.json").write_text(json.dumps(found), encoding="utf-8")


def test_a_plain_audit_has_none(tmp_path):
    assert hardened.read(tmp_path) is None


def test_the_changes_are_in_words_with_what_was_beyond_reach(tmp_path):
    write(tmp_path, FOUND)
    found = hardened.read(tmp_path)
    clean, robust, distance = found.changes
    assert (clean.before, clean.difference) == (("50.0 %", "[40.0, 60.0]"), ("+12.5 points", "[-5.0, +30.0]"))
    assert robust.difference[0] == "-12.5 points"
    assert (distance.after, distance.difference) == (("beyond reach", ""), ("+0.125", "[-0.05, beyond]"))
    assert found.mark == "none"
    assert found.training == (
        "Fine-tuned with sum (parts = pgd + parseval) on 1,200 samples; epoch 4 of 5 was chosen on 120 others."
    )


@pytest.mark.parametrize("missing", ["outcome", "before", "difference", "training"])
def test_an_incomplete_comparison_is_refused(tmp_path, missing):
    write(tmp_path, {k: v for k, v in FOUND.items() if k != missing})
    with pytest.raises(Failure, match=f"harden.json: KeyError.*{missing}.*run the hardening again"):
        hardened.read(tmp_path)


def test_a_damaged_comparison_is_refused(tmp_path):
    (tmp_path / "harden.json").write_text("{", encoding="utf-8")
    with pytest.raises(Failure, match="run the hardening again"):
        hardened.read(tmp_path)
