"""The first tables: persons, answers, recruited, about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "persons",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("block", sa.Integer(), nullable=False),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("language", sa.String(16), nullable=False),
        sa.Column("consent", sa.String(32), nullable=False),
        sa.Column("consented", sa.Date(), nullable=False),
        sa.Column("expires", sa.Date()),
        sa.Column("finished", sa.Boolean(), nullable=False),
    )
    op.create_index("ix_persons_number", "persons", ["number"], unique=True)
    op.create_index("ix_persons_token", "persons", ["token"], unique=True)
    op.create_index("ix_persons_expires", "persons", ["expires"])
    op.create_table(
        "answers",
        sa.Column("person", sa.String(32), sa.ForeignKey("persons.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("block", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("stimulus", sa.String(32), nullable=False),
        sa.Column("sample", sa.String(), nullable=False),
        *(
            sa.Column(name, sa.String())
            for name in ("model", "attack", "threat", "left", "right", "label", "predicted")
        ),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("chosen", sa.JSON(), nullable=False),
        sa.Column("best", sa.String()),
        sa.Column("unrecognizable", sa.Boolean(), nullable=False),
        sa.Column("preferred", sa.String()),
        *(sa.Column(name, sa.Boolean()) for name in ("fooled", "reasonable", "correct")),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("language", sa.String(16), nullable=False),
    )
    op.create_table(
        "recruited",
        sa.Column("code", sa.String(100), primary_key=True),
        sa.Column("finished", sa.Boolean(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "about", sa.Column("name", sa.String(32), primary_key=True), sa.Column("value", sa.String(), nullable=False)
    )


def downgrade() -> None:
    for table in ("answers", "persons", "recruited", "about"):
        op.drop_table(table)
