"""A database brought to the tables of this version, or refused by name."""

from __future__ import annotations

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect
from sqlalchemy.engine import Connection

from steadygrad.errors import Failure

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, named: str) -> None:
    """Bring a database to the newest tables, within the transaction that is open.

    Args:
        named: how errors call the database, without its password.

    Raises:
        Failure: it is none of a study, or a newer version of steadygrad has written it.
    """
    scripts = ScriptDirectory(str(MIGRATIONS))
    context = MigrationContext.configure(
        connection, opts={"fn": lambda revision, _: scripts._upgrade_revs("head", revision)}
    )
    found = context.get_current_revision()
    if found is None and inspect(connection).get_table_names():
        raise Failure(f"{named} holds tables of something else: give a database that is empty, or that of a study")
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise Failure(
            f"{named} has tables of version {found}, which this version of steadygrad does not know (it knows "
            f"{scripts.get_current_head()}): use the version that wrote it, or a newer one"
        )
    with Operations.context(context):
        context.run_migrations()
