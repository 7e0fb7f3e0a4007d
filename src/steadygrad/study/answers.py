"""The answers of a study: from its database to a table, to files, and to a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steadygrad.audit.schema_people import People
from steadygrad.errors import UsageError
from steadygrad.files import write_text
from steadygrad.serving.extra import need
from steadygrad.study import answers_table
from steadygrad.study.exclusions import Rules

if TYPE_CHECKING:
    import pandas as pd

_FINISHED = "whether the person has answered everything"


@dataclass(frozen=True)
class Answers:
    """The answers of a study, with what its files say of them.

    Attributes:
        rules: who and what is left out; None where no study says.
        models: that the study asks about.
    """

    table: pd.DataFrame
    title: str = ""
    rules: Rules | None = None
    models: tuple[str, ...] = ()


def read(source: Path, database: str | None = None) -> Answers:
    """The answers of a study folder, or of a file of an export.

    Args:
        database: address of the study's database; None for the file in its folder.

    Raises:
        UsageError: there is no study and no file, or there are no answers.
        Failure: the database cannot be read, or belongs to another study.
    """
    if source.is_file():
        if database is not None:
            raise UsageError(f"{source} is a file of answers, which needs no --database: give a study folder with it")
        return Answers(answers_table.read(source), source.stem)
    need("the answers of a study", "sqlmodel", "alembic")
    import pandas as pd

    from steadygrad.study import folder, settings
    from steadygrad.study.database import Database

    design, about = folder.read(source), settings.read(source)
    kept = Database(database or f"sqlite:///{source / 'answers.sqlite'}", design.key, make=False)
    try:
        rows, fixed = kept.rows(), kept.said("rules")
    finally:
        kept.close()
    if not rows:
        raise UsageError(f"the study {source} has no answers yet: serve it first (steadygrad study serve {source})")
    rules = None if fixed is None else Rules.model_validate_json(fixed)
    return Answers(answers_table.checked(pd.DataFrame(rows)), about.title, rules, tuple(design.counted()["models"]))


def export(source: Path, out: Path, database: str | None = None) -> list[Path]:
    """Write the answers of a study as Parquet and CSV with a codebook; returns the files.

    Raises:
        UsageError, Failure: as of `read`; a file cannot be written.
    """
    need("study export", "sqlmodel")
    from steadygrad.study.database_tables import ANSWERS

    found = read(source, database)
    return answers_table.write(found.table, out, {**ANSWERS, "finished": _FINISHED})


def report(source: Path, out: Path, database: str | None = None, run: Path | None = None) -> People:
    """Judge the answers of a study and write its page, whole or not at all; equal answers give equal bytes.

    Args:
        run: run folder of an audit, whose page then has a section about them.

    Raises:
        UsageError, Failure: as of `read`; there is no run in the folder.
    """
    need("study report", "krippendorff")
    from steadygrad.report import write
    from steadygrad.run_folders import read_record
    from steadygrad.study.answers_page import render
    from steadygrad.study.judgements import judge

    found = read(source, database)
    if run is not None and "classifier" in read_record(run):
        raise UsageError(f"--into {run} holds a training, which has no page: give the run folder of an audit")
    people = judge(found.table, found.rules, title=found.title, models=found.models)
    write_text(out, render(people))
    if run is not None:
        people.write(run / People.FILE)
        write(run)
    return people
