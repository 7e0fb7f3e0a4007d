"""The published numbers, and how far ours are from them."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steadygrad.errors import UsageError
from steadygrad.evaluation.statistics import Estimate, difference, wilson

__all__ = ["Difference", "between", "from_number", "paired", "rows"]

_FOLDER = Path(__file__).parent / "numbers"


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs with a 95 % interval.

    >>> Difference(0.02, -0.01, 0.05).includes_zero
    True
    """

    value: float
    low: float
    high: float

    @property
    def includes_zero(self) -> bool:
        """Whether the interval leaves open which one is larger."""
        return self.low <= 0 <= self.high

    def plain(self) -> dict[str, float]:
        """The difference as plain data for `summary.json`."""
        return {"value": self.value, "low": self.low, "high": self.high}


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


def between(ours: Estimate, theirs: float, count: int) -> Difference:
    """Our share minus a published one that was found on `count` samples.

    The interval is Newcombe's hybrid of two Wilson intervals (1998, method 10), for independent
    samples; where both used the same images it is wider than need be.

    >>> between(wilson(90, 100), 0.9, 100).includes_zero
    True
    """
    other = wilson(min(count, max(0, round(theirs * count))), count)
    value = ours.value - theirs
    low = value - math.hypot(ours.value - ours.low, other.high - other.value)
    high = value + math.hypot(ours.high - ours.value, other.value - other.low)
    return Difference(value, low, high)


def from_number(ours: Estimate, theirs: float) -> Difference:
    """Our mean minus a published one of unknown spread: the interval is that of ours alone."""
    return Difference(ours.value - theirs, ours.low - theirs, ours.high - theirs)


def paired(first: Any, second: Any) -> Difference:
    """Mean difference of two measurements of the same samples, (N,) each, as `statistics.difference` gives it.

    >>> paired([1, 1, 0, 1], [0, 1, 0, 0]).value
    0.5
    """
    found = difference(first, second)
    return Difference(found.value, found.low, found.high)
