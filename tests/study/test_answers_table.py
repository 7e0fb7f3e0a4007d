from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.judgements import DESIGNS, answer, answers
from steadygrad.errors import UsageError
from steadygrad.study.answers_table import COLUMNS, LISTS, checked, read, write


def small() -> pd.DataFrame:
    rows = [
        answer(0, "a", "plain", True, True, position=0, label='<b>"3",\n</b>'),
        answer(0, "b", "plain", False, False, position=1, best=None, chosen=[]),
        answer(1, "a", "plain", False, True, position=0, unrecognizable=True, chosen=[], best=None),
        answer(1, "c", position=1, kind="clean", correct=True, best="3", chosen=["3"]),
        answer(1, "d", position=2, kind="maps", left="plain", right="robust", preferred="robust"),
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    before = checked(small())
    paths = write(before, tmp_path, dict.fromkeys(COLUMNS, "what it means"))
    for path in paths[:2]:
        pd.testing.assert_frame_equal(read(path), before)
    assert "5 answers of 2 persons" in paths[2].read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in paths[2].read_text(encoding="utf-8") for name in COLUMNS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["best", "attack"]), "lacks the columns attack, best"),
        (lambda t: t[:0], "has no answers: nobody has answered yet"),
        (
            lambda t: t.assign(kind="quiz"),
            "kind must be one of practice, labels, .*, got quiz in trial 0 of person 'p0'",
        ),
        (lambda t: t.assign(seconds=-1.0), r"seconds must be a time of at least 0, got -1\.0"),
        (lambda t: t.assign(seconds="soon"), "has a value that its column cannot hold: could not convert"),
        (lambda t: t.assign(model=None), "model must be a value where kind is labels"),
        (lambda t: t.assign(position=0), "has the trial 0 of person 'p0' twice"),
        (lambda t: t.assign(predicted="3"), "fooled must be what follows from best"),
        (lambda t: t.assign(unrecognizable=True), "reasonable must be what follows from best"),
    ],
)
def test_what_is_no_table_is_refused_by_name(change, message) -> None:
    with pytest.raises(UsageError, match=message):
        checked(change(small()))


def test_what_is_no_file_of_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        read(tmp_path / "answers.csv")
    for name, text, message in (
        ("a.csv", "", "is no table of answers: No columns"),
        ("b.csv", "x,y\n1,2\n", "lacks the columns"),
        ("c.parquet", "x", "is no table of answers"),
        ("d.txt", "x", "answers are in a .parquet or .csv file"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=message):
            read(tmp_path / name)


def test_the_simulated_answers_are_a_table() -> None:
    assert len(checked(answers(DESIGNS[0], {"plain": (0.2, 0.5)}, 0))) == 110
    assert set(LISTS) < set(COLUMNS)
