from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlmodel", reason="needs the extra study")

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlmodel import SQLModel

from steadygrad.errors import Failure, UsageError
from steadygrad.study.database import Database
from steadygrad.study.database_tables import ANSWERS, Answer


def _answer(person: str, position: int, **more: Any) -> Answer:
    values: dict[str, Any] = {
        "block": 0, "kind": "labels", "stimulus": "s", "sample": "1", "model": "net", "options": ["a", "ü"],
        "chosen": ["ü"], "best": "ü", "seconds": 1.5, "language": "en",
    }  # fmt: skip
    return Answer(person=person, position=position, **{**values, **more})


def test_answers_come_back_as_they_were_given(url):
    database = Database(url, "study")
    person, token = database.enroll("en", "1", blocks=2)
    assert database.person(token) == (person, 0)
    assert database.store(_answer(person.id, 0, fooled=True, left=None))
    assert database.person(token) == (person, 1)
    assert database.person("forged") is None
    assert not database.rows()[0]["finished"]
    assert database.store(_answer(person.id, 1), last=True)
    row, after = database.rows()
    assert after["finished"]
    assert list(row) == [*ANSWERS, "finished"]
    assert (row["options"], row["chosen"], row["fooled"], row["reasonable"], row["seconds"], row["finished"]) == (
        ["a", "ü"], ["ü"], True, None, 1.5, True,
    )  # fmt: skip
    database.close()
    again = Database(url)
    assert again.rows() == [row, after]
    again.close()


def test_an_answer_is_kept_once_whoever_sends_it_again(url):
    database = Database(url, "study")
    person, token = database.enroll("en", "1", blocks=1)
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda i: database.store(_answer(person.id, 0, seconds=i)), range(16)))
    assert sum(stored) == 1
    assert [row["seconds"] for row in database.rows()] == [stored.index(True)]
    assert database.person(token) == (person, 1)
    database.close()


def test_places_in_the_design_are_given_once_and_again_after_a_withdrawal(url):
    database, other = Database(url, "study"), Database(url, "study")  # such as two processes
    with ThreadPoolExecutor(8) as pool:
        persons = list(pool.map(lambda i: (database, other)[i % 2].enroll("en", "1", blocks=3)[0], range(24)))
    assert sorted(person.number for person in persons) == list(range(24))
    assert {person.block == person.number % 3 for person in persons} == {True}
    gone = persons[7]
    database.store(_answer(gone.id, 0))
    database.withdraw(gone.id)
    assert not database.store(_answer(gone.id, 1))
    assert database.count() == {"persons": 23, "finished": 0, "answers": 0}
    assert database.enroll("en", "1", blocks=3)[0].number == gone.number
    database.close()
    other.close()


def test_what_expires_is_deleted_on_its_day(url):
    database = Database(url, "study")
    short, _ = database.enroll("en", "1", blocks=1, expires=date(2030, 1, 2))
    long, _ = database.enroll("en", "1", blocks=1)
    for person in (short, long):
        database.store(_answer(person.id, 0))
    assert database.expire(date(2030, 1, 1)) == 0
    assert database.expire(date(2030, 1, 2)) == 1
    assert [row["person"] for row in database.rows()] == [long.id]
    database.close()


def test_recruitment_ids_lead_to_nobody(url):
    database = Database(url, "study")
    database.recruited("b")
    database.recruited("a")
    database.recruited("b", finished=True)
    database.recruited("b")
    assert [(found.code, found.finished) for found in database.recruitments()] == [("a", False), ("b", True)]
    with database.engine.begin() as connection:
        columns = {row[0] for row in connection.execute(text("SELECT * FROM recruited")).mappings().first().items()}
    assert columns == {"code", "finished"}
    database.close()


def test_migrations_lead_to_the_tables_of_the_models(url):
    database = Database(url, "study")
    with database.engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _not_alembic})
        assert compare_metadata(context, SQLModel.metadata) == []
    database.close()


def _not_alembic(name: str, kind: str, _: Any) -> bool:
    return kind != "table" or name != "alembic_version"


def test_a_database_of_another_study_or_version_or_program_is_named(url):
    Database(url, "study").close()
    with pytest.raises(Failure, match="holds the answers of another study"):
        Database(url, "other")
    database = Database(url)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(Failure, match=r"has tables of version 9999, which .* does not know \(it knows 0\d+\)"):
        Database(url, "study")


def test_a_file_of_something_else_is_left_alone(tmp_path: Path):
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(Failure, match="holds tables of something else"):
        Database(str(path), "study")
    (tmp_path / "text.sqlite").write_text("no database, but a long enough text" * 100)
    with pytest.raises(Failure, match=r"text.sqlite cannot be used: file is not a database"):
        Database(str(tmp_path / "text.sqlite"), "study")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("mysql://here/x", "got one of 'mysql'"),
        ("://", "got one none"),
        ("sqlite://", "got one of no file"),
        ("/nowhere/answers.sqlite", "there is no folder /nowhere"),
        ("/tmp", "/tmp is a folder"),
    ],
)
def test_an_address_that_is_none_is_named(address, said):
    with pytest.raises(UsageError, match=said):
        Database(address, "study")


def test_a_password_is_not_repeated():
    with pytest.raises(Failure, match=r"postgresql://me:\*\*\*@127.0.0.1:1/x cannot be used") as caught:
        Database("postgresql://me:secret@127.0.0.1:1/x", "study")
    assert "secret" not in str(caught.value)


def test_a_database_that_is_only_read_is_not_made(tmp_path: Path):
    with pytest.raises(UsageError, match="there is no database at"):
        Database(f"{tmp_path}/none.sqlite", make=False)
    assert not any(tmp_path.iterdir())
