"""Where answers are kept: a SQLite file with a write-ahead log, or PostgreSQL by its address; both the same to all."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, func
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlmodel import Session, col, delete, select

from steadygrad.errors import Failure, UsageError
from steadygrad.study.database_tables import ANSWERS, About, Answer, Person, Recruited
from steadygrad.study.migrated import migrate

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_TRIES = 20


def hashed(token: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(token.encode()).hexdigest()


class Database:
    """The persons and answers of one study.

    Args:
        url: `sqlite:///PATH` or `postgresql://USER@HOST/NAME`; a plain path is a SQLite file.
        study: key of the study that the database belongs to; None takes that of whatever study it is.
        make: whether a SQLite file that is not there is made.

    Raises:
        UsageError: the address is none, or no database is there.
        Failure: it cannot be reached, or belongs to another study, version or program.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> database = Database(f"{folder.name}/answers.sqlite", "a study")
    >>> person, token = database.enroll("en", "1", blocks=3)
    >>> database.person(token) == (person, 0), database.count()
    (True, {'persons': 1, 'finished': 0, 'answers': 0})
    >>> database.close()
    >>> folder.cleanup()
    """

    def __init__(self, url: str, study: str | None = None, *, make: bool = True) -> None:
        self.engine, self.named = _engine(url, make)
        self._reader = self.engine.execution_options(reading=True)
        self._turn = threading.Lock()
        try:
            with self._failing(), self.engine.begin() as connection:
                migrate(connection, self.named)
            with self.session() as session:
                known = session.get(About, "study")
                if known is None and study is not None:
                    session.add(About(name="study", value=study))
                elif known is not None and study not in (None, known.value):
                    raise Failure(
                        f"{self.named} holds the answers of another study: give the one that was made for this study "
                        "(--database), or an empty one"
                    )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def session(self, *, reading: bool = False) -> Iterator[Session]:
        """A transaction: what is done in it is kept at its end, or nothing where it fails."""
        engine = self._reader if reading else self.engine
        with Session(engine, expire_on_commit=False) as session, self._failing():
            yield session
            session.commit()

    def enroll(
        self, language: str, consent: str, *, blocks: int, expires: date | None = None, today: date | None = None
    ) -> tuple[Person, str]:
        """Somebody new who has consented, and the secret that the browser keeps.

        The place in the design is the first free one, so that blocks stay balanced when somebody withdraws.
        """
        token = secrets.token_urlsafe(32)
        for _ in range(_TRIES):
            with self._turn:  # other processes may enroll too: the tables refuse one place given twice
                try:
                    with self.session() as session:
                        taken = set(session.exec(select(Person.number)))
                        number = next(n for n in range(len(taken) + 1) if n not in taken)
                        person = Person(
                            id=secrets.token_hex(8), number=number, block=number % blocks, token=hashed(token),
                            language=language, consent=consent, consented=today or date.today(), expires=expires,
                        )  # fmt: skip
                        session.add(person)
                except IntegrityError:
                    continue
                return person, token
        raise Failure(f"{self.named} is too busy to enroll somebody: try again")

    def person(self, token: str) -> tuple[Person, int] | None:
        """Whom a secret belongs to, and the first position that is not answered; those before all are."""
        answered = select(func.count()).where(col(Answer.person) == col(Person.id)).scalar_subquery()
        with self.session(reading=True) as session:
            found = session.exec(select(Person, answered).where(Person.token == hashed(token))).first()
        return None if found is None else (found[0], int(found[1]))

    def store(self, answer: Answer, *, last: bool = False) -> bool:
        """Keep an answer; False where one is there already, or the person has withdrawn.

        Args:
            last: whether the person has then answered everything, which is noted with the answer or not at all.
        """
        try:
            with self.session() as session:
                session.add(answer)
                if last and (person := session.get(Person, answer.person)) is not None:
                    person.finished = True
        except IntegrityError:
            return False
        return True

    def withdraw(self, person: str) -> None:
        """Delete a person and all answers."""
        with self.session() as session:
            session.exec(delete(Answer).where(col(Answer.person) == person))
            session.exec(delete(Person).where(col(Person.id) == person))

    def recruited(self, code: str, *, finished: bool = False) -> None:
        """Note a recruitment id, or that whoever has it has finished."""
        with self._turn, self.session() as session:
            found = session.get(Recruited, code) or Recruited(code=code)
            found.finished = found.finished or finished
            session.add(found)

    def said(self, name: str, value: str | None = None) -> str | None:
        """What was first said under a name; where nothing was, the value is kept from now on."""
        with self._turn, self.session() as session:
            known = session.get(About, name)
            if known is None and value is not None:
                session.add(About(name=name, value=value))
            return value if known is None else known.value

    def recruitments(self) -> list[Recruited]:
        """All recruitment ids, by name."""
        with self.session(reading=True) as session:
            return list(session.exec(select(Recruited).order_by(col(Recruited.code))))

    def expire(self, today: date) -> int:
        """Delete everybody whose retention date has come; returns how many."""
        with self.session() as session:
            gone = list(session.exec(select(Person.id).where(col(Person.expires) <= today)))
        for person in gone:
            self.withdraw(person)
        return len(gone)

    def count(self) -> dict[str, int]:
        """How many persons, of these finished, and answers there are."""
        with self.session(reading=True) as session:
            counted = {
                "persons": select(func.count()).select_from(Person),
                "finished": select(func.count()).select_from(Person).where(col(Person.finished)),
                "answers": select(func.count()).select_from(Answer),
            }
            return {name: int(session.exec(query).one()) for name, query in counted.items()}

    def rows(self) -> list[dict[str, Any]]:
        """The answers, in the order of persons and positions: the columns of `ANSWERS`, and `finished`."""
        query = (
            select(Answer, Person.finished)
            .join(Person, col(Person.id) == col(Answer.person))
            .order_by(col(Person.number), col(Answer.position))
        )
        with self.session(reading=True) as session:
            found = session.exec(query).all()
        return [{**{name: getattr(a, name) for name in ANSWERS}, "finished": bool(done)} for a, done in found]

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Errors of the database by its name; what a constraint refuses is for the caller."""
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            why = str(error.orig).strip().partition("\n")[0]
            raise Failure(f"{self.named} cannot be used: {why}") from None


def _engine(url: str, make: bool) -> tuple[Engine, str]:
    """An engine, and how errors call the database."""
    try:
        found = make_url(url if "://" in url else f"sqlite:///{url}")
    except (ArgumentError, ValueError):
        raise UsageError(_address("none")) from None
    named = f"the database {found.render_as_string(hide_password=True)}"
    driver = _DRIVERS.get(found.drivername.partition("+")[0])
    if driver is None:
        raise UsageError(_address(f"of {found.drivername!r}"))
    found = found.set(drivername=driver)
    if driver != "sqlite":
        try:
            return create_engine(found, pool_size=10, max_overflow=30, connect_args={"connect_timeout": 10}), named
        except (NoSuchModuleError, ImportError) as error:
            raise UsageError(f"{named} needs a driver that is not installed ({error})") from None
    if not found.database or found.database == ":memory:":
        raise UsageError(_address("of no file"))
    path = Path(found.database)
    if path.is_dir():
        raise UsageError(f"{named} cannot be: {path} is a folder; give the path of a file")
    if not path.parent.is_dir():
        raise UsageError(f"{named} cannot be: there is no folder {path.parent}; make it first")
    if not make and not path.exists():
        raise UsageError(f"there is no database at {path}: give that of a study with --database")
    engine = create_engine(found, pool_size=10, max_overflow=30, connect_args={"timeout": 30})
    event.listen(engine, "connect", _prepared)
    event.listen(engine, "begin", _begun)
    return engine, named


def _address(what: str) -> str:
    return (
        f"--database is the address of a SQLite file or of PostgreSQL, got one {what}: give sqlite:///PATH or "
        "postgresql://USER:PASSWORD@HOST/NAME"
    )


def _prepared(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin below, where the driver would begin them late
    for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")


def _begun(connection: Any) -> None:
    # Writers wait for their turn here, rather than fail where a reader becomes one.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
