"""The databases of the tests, a SQLite file, and PostgreSQL where it is installed; and a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import postgres
from study import studies
from study.serving import Server


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[str]:
    """Of a running server; tests are skipped, visibly, without."""
    if not postgres.there():
        pytest.skip("needs PostgreSQL: install postgresql and psycopg")
    with postgres.server() as folder:
        yield folder


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, of both kinds in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/answers.sqlite"
    return postgres.new_database(request.getfixturevalue("postgres_folder"))


@pytest.fixture
def server(tmp_path: Path, url: str) -> Iterator[Server]:
    """A study of 30 trials after 2 for practice and before 2 about maps, served from a process of its own."""
    studies.small(tmp_path / "study")
    found = Server(tmp_path / "study", url)
    found.start()
    yield found
    found.close()
