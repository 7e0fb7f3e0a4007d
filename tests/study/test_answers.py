from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("sqlmodel", reason="needs the extra study")

from benchmarks.judgements import DESIGNS, answers
from cli.commands import done, refused
from steadygrad.files import write_json
from steadygrad.study import answers_table, settings, stimuli
from steadygrad.study.database import Database
from steadygrad.study.database_tables import ANSWERS, Answer
from steadygrad.study.design import Design, Stimulus
from steadygrad.study.exclusions import Rules

RATES = {"plain": (0.1, 0.4), "robust": (0.3, 0.6)}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study folder with empty pictures that asks about three models, one of which nobody judges."""
    shown = {m: Stimulus(m, "labels", "a", "3", (m,), model=m) for m in ("plain", "robust", "unseen")}
    folder = tmp_path / "study"
    write_json(folder / stimuli.DESIGN, Design("a key", 0, ("3", "5"), shown, (), (((), ()),)).plain())
    (folder / stimuli.PICTURES).mkdir()
    for name in shown:
        (folder / stimuli.PICTURES / f"{name}.png").write_bytes(b"")
    settings.template(folder / settings.FILE)
    return folder


def answered(url: str) -> pd.DataFrame:
    """Simulated answers, stored as those of the persons of a database."""
    rows = answers(DESIGNS[0], RATES, 0).to_dict("records")
    database = Database(url, "a key")
    persons = {}
    for row in rows:
        if row["person"] not in persons:
            persons[row["person"]] = database.enroll("en", "1", blocks=1)[0].id
        # Whoever has answered at all has answered everything.
        database.store(Answer(**{name: row[name] for name in ANSWERS} | {"person": persons[row["person"]]}), last=True)
    database.said("rules", Rules(fastest=1.5).model_dump_json())
    database.close()
    return pd.DataFrame(rows).assign(person=lambda t: t["person"].map(persons))


def test_what_is_stored_is_exported_and_judged(study: Path, url: str, tmp_path: Path) -> None:
    expected = answers_table.checked(answered(url))
    found = json.loads(done("study", "export", study, "--database", url, "--out", tmp_path / "out", "--json").out)
    assert [Path(name).name for name in found["files"]] == ["answers.parquet", "answers.csv", "codebook.md"]
    pd.testing.assert_frame_equal(answers_table.read(Path(found["files"][0])), expected)
    codebook = (tmp_path / "out" / "codebook.md").read_text(encoding="utf-8")
    assert all(meaning in codebook for meaning in ANSWERS.values())
    said = json.loads(done("study", "report", study, "--database", url, "--json").out)
    assert said["report"] == str(study / "report.html")
    assert [row["model"] for row in said["models"]] == ["plain", "robust", "unseen"]
    assert said["excluded"]["rules"]["fastest"] == 1.5  # as they were when the study was first served
    assert said["excluded"]["fixed"] is True
    page = (study / "report.html").read_text(encoding="utf-8")
    # The export alone gives the same numbers.
    again = json.loads(done("study", "report", found["files"][1], "--out", tmp_path / "page.html", "--json").out)
    assert again["models"] == said["models"][:2]
    assert "Fixed when the study was first served" in page


def test_a_study_without_answers_is_told(study: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{study / 'answers.sqlite'}"
    assert "there is no database at" in refused(2, "study", "export", study)
    Database(url, "a key").close()
    for command in ("export", "report"):
        assert "has no answers yet: serve it first" in refused(2, "study", command, study)
    Database(f"sqlite:///{tmp_path / 'b.sqlite'}", "another").close()
    error = refused(1, "study", "report", study, "--database", f"sqlite:///{tmp_path / 'b.sqlite'}")
    assert "holds the answers of another study" in error
    assert sorted(path.name for path in study.iterdir() if "sqlite" not in path.name) == [
        "design.json",
        "stimuli",
        "study.toml",
    ]


def test_what_is_no_study_no_page_and_no_run_is_refused(study: Path, tmp_path: Path) -> None:
    answered(f"sqlite:///{study / 'answers.sqlite'}")
    assert "there is no study at" in refused(2, "study", "report", tmp_path)
    assert "--out is the page to write" in refused(2, "study", "report", study, "--out", tmp_path)
    assert str(tmp_path) in refused(2, "study", "report", study, "--into", tmp_path)
    done("study", "export", study)
    error = refused(2, "study", "report", study / "export" / "answers.csv", "--database", "x.sqlite")
    assert "which needs no --database" in error
    assert not list(tmp_path.glob("*.html"))


def test_the_first_rules_stay(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.sqlite'}", "a key")
    assert database.said("rules") is None
    assert [database.said("rules", text) for text in ("first", "second")] == ["first", "first"]
    assert database.said("rules") == "first"
    database.close()


def test_the_template_says_the_usual_rules(study: Path) -> None:
    assert settings.read(study).rules == Rules()
