"""The tables of a study's database: persons, their answers, and apart from both who was recruited."""

from __future__ import annotations

from datetime import date
from typing import Any

from sqlmodel import JSON, Column, Field, SQLModel

ANSWERS: dict[str, str] = {
    "person": "random id of the person, which is not the recruitment id",
    "position": "place in the person's order, from 0",
    "block": "block of the balanced design",
    "kind": "practice, labels (which labels are plausible), maps (which of two explains better), clean (as labels, of "
    "an unchanged image) or attention (the answer is told)",
    "stimulus": "opaque id of what was shown",
    "sample": "id of the source image in its run",
    "model": "model of the adversarial image; of maps, where both are of one model",
    "attack": "label of the attack; of labels alone",
    "threat": "threat of the attack, in words; of labels alone",
    "left": "of maps: the model or the attribution method on the left",
    "right": "of maps: that on the right",
    "label": "class of the original",
    "predicted": "class that the model predicts for what is shown",
    "options": "classes offered, in their order",
    "chosen": "classes that were named plausible",
    "best": "the most plausible of them",
    "unrecognizable": "none of these, or cannot be recognized",
    "preferred": "of maps: left or right, as named there; null: no difference",
    "fooled": "of labels: best is predicted",
    "reasonable": "of labels: predicted is chosen, or the image is unrecognizable",
    "correct": "of clean and practice: best is label; of attention: best is what was told",
    "seconds": "from showing to answer, measured in the browser",
    "language": "of the texts",
}
"""The columns of the answers."""


class Person(SQLModel, table=True):
    """Somebody who has consented; withdrawing deletes the row.

    Attributes:
        id: random, and what answers are stored under.
        number: place in the design, which says block, order and sides; one that is free is given again.
        token: hash of what the person's browser holds.
        consent: version of the text that was consented to.
        consented: the day.
        expires: the day on which the row and the answers are deleted.
    """

    __tablename__ = "persons"
    id: str = Field(primary_key=True, max_length=32)
    number: int = Field(unique=True, index=True)
    block: int
    token: str = Field(unique=True, index=True, max_length=64)
    language: str = Field(max_length=16)
    consent: str = Field(max_length=32)
    consented: date
    expires: date | None = Field(default=None, index=True)
    finished: bool = False


class Answer(SQLModel, table=True):
    """One answered trial: the columns of `ANSWERS`."""

    __tablename__ = "answers"
    person: str = Field(primary_key=True, foreign_key="persons.id", ondelete="CASCADE", max_length=32)
    position: int = Field(primary_key=True)
    block: int
    kind: str = Field(max_length=16)
    stimulus: str = Field(max_length=32)
    sample: str
    model: str | None = None
    attack: str | None = None
    threat: str | None = None
    left: str | None = None
    right: str | None = None
    label: str | None = None
    predicted: str | None = None
    options: list[str] = Field(sa_column=Column(JSON, nullable=False))
    chosen: list[str] = Field(sa_column=Column(JSON, nullable=False))
    best: str | None = None
    unrecognizable: bool = False
    preferred: str | None = None
    fooled: bool | None = None
    reasonable: bool | None = None
    correct: bool | None = None
    seconds: float
    language: str = Field(max_length=16)


_APART: dict[str, Any] = {"sqlite_with_rowid": False}  # numbers of rows would tell in which order they came


class Recruited(SQLModel, table=True):
    """A recruitment id, for paying: nothing leads from it to a person's answers."""

    __tablename__ = "recruited"
    __table_args__ = _APART
    code: str = Field(primary_key=True, max_length=100)
    finished: bool = False


class About(SQLModel, table=True):
    """What the database belongs to."""

    __tablename__ = "about"
    name: str = Field(primary_key=True, max_length=32)
    value: str
