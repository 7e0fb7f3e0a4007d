"""Data from tables: `.csv` files with a column of labels, all others numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from steadygrad.data.dataset import Dataset
from steadygrad.data.form import Form
from steadygrad.data.labels import IGNORED
from steadygrad.data.splits import Asked, holdout, numbered
from steadygrad.errors import UsageError, reading

if TYPE_CHECKING:
    from pandas import DataFrame, Series

LABELS = ("label", "labels", "class", "target", "y")
"""Names of the column of labels, in any case; without one of them it is the last column."""


def load_csv(path: Path, name: str, asked: Asked) -> Dataset:
    """A split of a table with a header: a file, divided by `holdout`, or a folder with train.csv and test.csv.

    The bounds are those that are asked for, else the smallest and largest number in any of the files.

    Raises:
        UsageError: no such split, a column that is not of numbers, empty cells, a size or color.
        Failure: the file is not a table.
    """
    if asked.form != Form():
        raise UsageError(f"size, color and resize are for images, and {path} is a table: leave them out")
    files = {"": path} if path.is_file() else {file.stem: file for file in csv_files(path)}
    tables = {split: _table(file) for split, file in files.items()}
    first = next(iter(tables.values()))
    column = next((c for c in first.columns if str(c).strip().lower() in LABELS), first.columns[-1])
    for split, table in tables.items():
        if list(table.columns) != list(first.columns):
            raise UsageError(f"{files[split]} has other columns than {next(iter(files.values()))}: make them equal")
    classes = _classes([table[column] for table in tables.values()], str(column), path)
    values = {split: _numbers(table.drop(columns=column), files[split]) for split, table in tables.items()}
    ends = [float(end) for rows in values.values() for end in (rows.min(), rows.max())]
    notes = []
    if asked.bounds is None:
        notes.append(
            f"the smallest and largest value, {min(ends):g} and {max(ends):g}, are taken as the bounds of inputs "
            "(or choose bounds)"
        )
    bounds = asked.bounds or (min(ends), max(ends) if max(ends) > min(ends) else min(ends) + 1)
    part = asked.part(str(path), [split for split in files if split])
    split = part.split or ""
    positions = {title: place for place, title in enumerate(classes)}
    labels = [positions[_name(value)] for value in tables[split][column].tolist()]
    keep = holdout(labels, part.held)
    x = torch.from_numpy(values[split].astype(np.float32))[keep]
    ids = numbered(f"{name}/{split}/" if split else f"{name}/", keep)
    note = part.note(asked.split)
    notes += [] if note is None else [note]
    y = torch.tensor(labels, dtype=torch.int64)[keep]
    return Dataset(x, y, tuple(classes), ids, name, part.name, notes=tuple(notes), bounds=bounds)


def csv_files(folder: Path) -> list[Path]:
    """The tables in a folder that holds no folders, by name."""
    if any(file.is_dir() and not file.name.startswith(".") for file in folder.iterdir()):
        return []
    return sorted(file for file in folder.glob("*.csv") if file.is_file() and not file.name.startswith("."))


def _table(path: Path) -> DataFrame:
    import pandas as pd

    with reading(f"{path} is not a table of comma-separated values"):
        table = pd.read_csv(path, skipinitialspace=True)
    if all(_is_number(name) for name in table.columns):
        raise UsageError(f"the first line of {path} are numbers: it must name the columns")
    # What pandas writes as the first column where it is not told otherwise: the number of the row.
    table = table.loc[:, [not str(name).startswith("Unnamed:") for name in table.columns]]
    if table.shape[1] < 2 or not len(table):
        raise UsageError(
            f"{path} must have a header, a column of labels and at least one of numbers, got {table.shape}"
        )
    return table


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _classes(columns: list[Series], name: str, path: Path) -> list[str]:
    """The labels as names, in the order of the alphabet, or of the numbers."""
    found = {value for column in columns for value in column.tolist()}
    if any(value != value for value in found):
        raise UsageError(f"the column {name!r} of {path} has empty cells: give each sample a label")
    if any(isinstance(value, float) and not value.is_integer() for value in found):
        raise UsageError(
            f"the column {name!r} of {path} is taken as the labels, and has fractions: call the column of labels "
            "label, class or target, or make it the last one"
        )
    names = {_name(value) for value in found}
    if not all(re.fullmatch(r"-?\d{1,18}", n) for n in names):
        return sorted(names)
    _refuse_mark({int(n) for n in names}, columns, name, path)
    return sorted(names, key=int)


def _refuse_mark(numbers: set[int], columns: list[Series], name: str, path: Path) -> None:
    """Ask about -1 or 255 beside at least three numbers that count from 0."""
    for label in (-1, IGNORED):
        others = numbers - {label}
        if label in numbers and len(others) > 2 and others == set(range(len(others))) and IGNORED - max(others) > 10:
            rows = [row for column in columns for row, value in enumerate(column.tolist(), 1) if value == label]
            raise UsageError(
                f"the label {label} of {path} is beside 0 to {max(others)}: {len(rows)} of {sum(map(len, columns))} "
                f"rows have it, the first is row {rows[0]}. If it marks samples without a label, leave them out; if it "
                f"is a class, write a name such as 'other' in the column {name!r}"
            )


def _name(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) else str(value).strip()


def _numbers(table: DataFrame, path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    for name in table.columns:
        column = table[name]
        if column.dtype.kind not in "iufb":
            raise UsageError(
                f"the column {name!r} of {path} is not of numbers, got {column.iloc[0]!r}: encode or drop it"
            )
        if bool(column.isna().any()):
            row = int(np.flatnonzero(column.isna())[0])
            raise UsageError(f"the column {name!r} of {path} is empty in row {row + 1}: fill or drop it")
    return table.to_numpy(dtype=np.float64)
