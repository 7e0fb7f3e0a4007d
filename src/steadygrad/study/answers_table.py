"""The table of answers, a row per answered trial: what its columns hold, and how it is checked, written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steadygrad.errors import UsageError, reading
from steadygrad.files import atomic

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("practice", "labels", "maps", "clean", "attention")
LISTS = ("options", "chosen")
_TEXT, _NULL, _FLAG, _MAYBE = "text", "text or null", "true or false", "true, false or null"
COLUMNS = {
    "person": _TEXT,
    "position": "whole number",
    "block": "whole number",
    "kind": _TEXT,
    "stimulus": _TEXT,
    "sample": _TEXT,
    **dict.fromkeys(("model", "attack", "threat", "left", "right", "label", "predicted"), _NULL),
    **dict.fromkeys(LISTS, "list of texts"),
    "best": _NULL,
    "unrecognizable": _FLAG,
    "preferred": _NULL,
    **dict.fromkeys(("fooled", "reasonable", "correct"), _MAYBE),
    "seconds": "number",
    "language": _TEXT,
    "finished": _FLAG,
}
"""The columns, and what kind of value each of them holds."""
_NEEDED = {"labels": ("model", "predicted", "fooled", "reasonable"), "maps": ("left", "right")}


def checked(table: pd.DataFrame, name: str = "the table of answers") -> pd.DataFrame:
    """The table with a type for each column, its rows in the order of persons and positions.

    Raises:
        UsageError: a column is missing, a value cannot be, a trial is there twice, or there are no answers at all.

    >>> import pandas as pd
    >>> checked(pd.DataFrame({"person": ["a"]}))
    Traceback (most recent call last):
    steadygrad.errors.UsageError: the table of answers lacks the columns attack, best, ...
    """
    missing = sorted(set(COLUMNS) - set(table.columns))
    if missing:
        raise UsageError(f"{name} lacks the columns {', '.join(missing)}: give what `steadygrad study export` wrote")
    if not len(table):
        raise UsageError(f"{name} has no answers: nobody has answered yet, or all have withdrawn")
    found = table[list(COLUMNS)].copy()
    with reading(f"{name} has a value that its column cannot hold", kind=UsageError):
        for column, kind in COLUMNS.items():
            found[column] = _typed(found[column], kind)
    _refuse(name, "kind", found, ~found["kind"].isin(KINDS), f"one of {', '.join(KINDS)}")
    _refuse(name, "seconds", found, ~found["seconds"].between(0, 1e9), "a time of at least 0")
    for kind, columns in _NEEDED.items():
        for column in columns:
            wrong = (found["kind"] == kind) & found[column].isna()
            _refuse(name, column, found, wrong, f"a value where kind is {kind}")
    doubled = found.duplicated(["person", "position"])
    if doubled.any():
        row = found[doubled].iloc[0]
        raise UsageError(f"{name} has the trial {row['position']} of person {row['person']!r} twice: export it again")
    _agree(name, found)
    return found.sort_values(["person", "position"], ignore_index=True)


def _typed(values: pd.Series, kind: str) -> pd.Series:
    import pandas as pd

    if kind.startswith("text"):
        if "null" not in kind and values.isna().any():
            raise ValueError(f"{values.name} is null")
        return values.astype("string").astype(object).where(values.notna(), None)
    if kind == "list of texts":
        return pd.Series([[str(v) for v in value] for value in values], index=values.index, dtype=object)
    if kind == "number":
        return values.astype("float64")
    if kind == "whole number":
        return values.astype("int64")
    return values.astype("boolean") if "null" in kind else values.astype("bool")


def _refuse(name: str, column: str, table: pd.DataFrame, wrong: Any, expected: str) -> None:
    if wrong.any():
        row = table[wrong].iloc[0]
        where = f"trial {row['position']} of person {row['person']!r}"
        raise UsageError(f"{name}: {column} must be {expected}, got {row[column]!s:.80} in {where}")


def _agree(name: str, table: pd.DataFrame) -> None:
    """Refuse scores that do not follow from the answers, as in a table that was edited."""
    rows = table[table["kind"] == "labels"]
    named = np.array([p in chosen for p, chosen in zip(rows["predicted"], rows["chosen"], strict=True)], dtype=bool)
    for column, follows in (
        ("fooled", rows["best"] == rows["predicted"]),
        ("reasonable", rows["unrecognizable"] | named),
    ):
        wrong = follows.astype(bool) != rows[column].astype(bool)
        _refuse(name, column, rows, wrong, "what follows from best, chosen and unrecognizable")


def write(table: pd.DataFrame, folder: Path, meanings: dict[str, str]) -> list[Path]:
    """Write a checked table as `answers.parquet` and `answers.csv`, with `codebook.md`; each whole or not at all.

    In the CSV file lists are JSON, and null is an empty field.
    """
    paths = [folder / name for name in ("answers.parquet", "answers.csv", "codebook.md")]
    with atomic(paths[0]) as temporary:
        table.to_parquet(temporary, index=False)
    plain = table.copy()
    for column in LISTS:
        plain[column] = [json.dumps(value, ensure_ascii=False) for value in table[column]]
    with atomic(paths[1]) as temporary:
        plain.to_csv(temporary, index=False, lineterminator="\n")
    with atomic(paths[2]) as temporary:
        temporary.write_text(_codebook(meanings, len(table), table["person"].nunique()), encoding="utf-8")
    return paths


def _codebook(meanings: dict[str, str], answers: int, persons: int) -> str:
    rows = "".join(f"| `{name}` | {kind} | {meanings[name]} |\n" for name, kind in COLUMNS.items())
    return (
        f"# Answers of a study\n\n{answers:,} answers of {persons:,} persons, a row per answered trial; who has "
        "withdrawn is not among them. `answers.parquet` and `answers.csv` hold the same; in the latter lists are "
        f"JSON and null is an empty field.\n\n| column | type | meaning |\n|---|---|---|\n{rows}"
    )


def read(path: Path) -> pd.DataFrame:
    """The checked table of a file that `write` wrote, Parquet or CSV.

    Raises:
        UsageError: there is no such file, it is no such table, or it has no answers.
    """
    import pandas as pd

    if not path.is_file():
        raise UsageError(f"there is no file {path}: give a study, or the answers.parquet or answers.csv of an export")
    if path.suffix not in (".parquet", ".csv"):
        raise UsageError(f"answers are in a .parquet or .csv file, got {path}")
    with reading(f"{path} is no table of answers", kind=UsageError):
        if path.suffix == ".parquet":
            return checked(pd.read_parquet(path), str(path))
        table = pd.read_csv(path, dtype="string", keep_default_na=False)
        table = table.mask(table == "").astype(object).where(table != "", None)
        for column in set(COLUMNS) & set(table.columns):
            if COLUMNS[column].startswith("list"):
                table[column] = [json.loads(value or "[]") for value in table[column]]
            elif COLUMNS[column].startswith("true"):
                table[column] = table[column].map({"True": True, "False": False})
        return checked(table, str(path))
