"""The databases of the tests: a SQLite file, and PostgreSQL where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import postgres


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
