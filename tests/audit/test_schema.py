"""The schema: what is written is read, what is wrong is named, and the documentation is made from it."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from report.fake_summary import full, minimal, reread
from report.test_explained import attacked
from report.test_hardened import FOUND
from report.test_neurons import looked_at
from steadygrad.audit.schema import HardenSummary, Summary
from steadygrad.errors import Failure, UsageError
from steadygrad.files import read_json

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("made", [full, minimal, attacked, looked_at])
def test_what_is_written_is_read(tmp_path: Path, made: Any) -> None:
    plain, _ = made()
    summary = Summary.model_validate(plain)
    summary.write(tmp_path / "summary.json")
    assert Summary.read(tmp_path) == summary
    written = read_json(tmp_path / "summary.json")[0]
    assert written == summary.plain()
    assert {**written, "models": None} == {**plain, "models": None}


def test_a_hardening_is_read_as_written(tmp_path: Path) -> None:
    found = HardenSummary.model_validate(FOUND)
    found.write(tmp_path / "harden.json")
    assert HardenSummary.read(tmp_path) == found
    assert found.plain() == FOUND


def test_nothing_is_changed_afterwards() -> None:
    summary = Summary.model_validate(full()[0])
    with pytest.raises(ValidationError, match="frozen"):
        summary.models[0].clean.value = 1.0


def damaged(summary: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    copied = copy.deepcopy(summary)
    *path, last = [int(p) if p.isdigit() else p for p in place.split("/")]
    inner: Any = copied
    for step in path:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return copied


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("schema", ..., "no schema, this version reads 1"),
        ("schema", 2, "schema 2, this version reads 1"),
        ("extra", 1, "the document: unknown key extra"),
        ("threat", ..., "the document: missing threat"),
        ("created", "yesterday", "created: "),
        ("models/2/robust", ..., r"models\[2\]: missing robust"),
        ("models/1/attacks/0/accuracy/low", ..., r"models\[1\]\.attacks\[0\]\.accuracy: missing low"),
        ("models/0/curve/points/3/eps", ..., r"models\[0\]\.curve\.points\[3\]: missing eps"),
        ("models/0/curve/points/0/eps", 0.01, r"models\[0\]\.curve: points: expected radii that rise from 0"),
        ("models/0/robust/value", 41.0, r"models\[0\]\.robust\.value: .*less than or equal to 1, found 41.0"),
        ("models/0/clean/low", 0.999, r"models\[0\]\.clean: expected low <= value <= high"),
        ("models/0/clean/value", "0.4", r"models\[0\]\.clean\.value: .*number, found '0.4'"),
        ("models/0/robust/count", 49, r"models\[0\]: robust.count: expected samples, 300, found 49"),
        ("models/1/verdict/state", None, r"models\[1\]\.verdict\.state: .* found None"),
        ("models/1/verdict/state", "holds", r"models\[1\]\.verdict: state: does not follow from the checks"),
        ("models/0/by_class/0/clean/count", 7, r"models\[0\]: by_class.clean.count: expected 300 in all"),
        ("models/0/broken_by/0/attack", "other", r"models\[0\]: broken_by: expected the labels of the attacks"),
        ("models/0/gradient_norm/quantiles/0.05", 9e9, "expected quantiles that rise"),
        ("transfer/names", ["plain"], "transfer: accuracy: expected 1 rows of 1"),
        ("transfer/accuracy/1", [], "transfer: accuracy: expected 6 rows of 6"),
        ("gallery/grid", {"model": "honest"}, "gallery.grid: missing attack"),
        ("gallery/grid/success/0/0", True, "gallery.grid: success: expected null on the diagonal"),
        ("gallery/models/plain/0/distance", ..., r"gallery\.models\.plain\[0\]: missing distance"),
        ("gallery/models/plain/0/label", "none", r"gallery.models.plain\[0\].label: 'none' is no class"),
        ("gallery/models/other", [], "gallery.models: expected plain, .*found other"),
    ],
)
def test_the_first_wrong_key_is_named(tmp_path: Path, place: str, value: Any, message: str) -> None:
    with pytest.raises(Failure, match=rf"summary\.json: .*{message}.*; run the audit again"):
        reread(tmp_path, damaged(full()[0], place, value))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Summary.model_validate(damaged(full()[0], "models/0/attacks/0/median_distance", value))


@pytest.mark.parametrize("text", ["", "{", '{"schema": NaN}', "[1]"])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(Failure, match=r"summary\.json.*run the audit again"):
        Summary.read(tmp_path)


def test_a_missing_folder_or_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run folder .*nowhere"):
        Summary.read(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no summary\.json in"):
        Summary.read(tmp_path)


@pytest.mark.parametrize("missing", ["outcome", "before", "difference", "training"])
def test_an_incomplete_comparison_is_refused(tmp_path: Path, missing: str) -> None:
    (tmp_path / "harden.json").write_text(json.dumps({k: v for k, v in FOUND.items() if k != missing}))
    with pytest.raises(Failure, match=rf"harden\.json: the document: missing {missing}; run the hardening again"):
        HardenSummary.read(tmp_path)


@pytest.mark.parametrize("made", [full, attacked, looked_at])
def test_every_key_is_documented(made: Any) -> None:
    text = (DOCS / "summary.md").read_text(encoding="utf-8")

    def keys(value: Any) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(keys, value))
        if not isinstance(value, dict):
            return set()
        return set(value) | set().union(*map(keys, value.values()))

    summary, _ = made()
    free = keys(summary["config"]) | set(summary["config"]) | {m["name"] for m in summary["models"]}
    free |= {*(summary["explained"] or {"similarities": ()})["similarities"], "width", "loss", "restarts"}
    free |= {
        "energy inside",
        "agreement",
        "deletion",
        "deletion gain",
        "insertion",
        "gini",
        "noise_insensitivity",
        "insensitivity",
    }
    assert [key for key in sorted(keys(summary) - free) if f"`{key}`" not in text] == []


def test_the_documentation_is_made_from_the_schema() -> None:
    spec = importlib.util.spec_from_file_location("make_summary", DOCS / "make_summary.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    again = "out of date: run python docs/make_summary.py"
    assert (DOCS / "summary.md").read_text(encoding="utf-8") == made.render(), again
    assert (DOCS / "summary.schema.json").read_text(encoding="utf-8") == made.json_schema(), again
    # Every part that is named has its own heading.
    text = made.render()
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= {h.lower() for h in re.findall(r"^## (\w+)$", text, re.MULTILINE)}
