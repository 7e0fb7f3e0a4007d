"""The published numbers, read from the tables that come with the package."""

from __future__ import annotations

import csv
from pathlib import Path

from steadygrad.errors import UsageError

__all__ = ["rows"]

_FOLDER = Path(__file__).parent / "numbers"


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a file of published numbers.

    >>> rows("yan2018_table1")[0]["method"]
    'reference'
    """
    path = _FOLDER / f"{name}.csv"
    if not path.is_file():
        raise UsageError(f"there are no published numbers {name!r}: give one of {[p.stem for p in _FOLDER.iterdir()]}")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
