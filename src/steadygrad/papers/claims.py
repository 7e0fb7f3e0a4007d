"""What a paper says must come out, and whether it did; and the numbers that it published."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from steadygrad.errors import UsageError
from steadygrad.measuring.paired import mean_difference
from steadygrad.measuring.statistics import Estimate

Sense = Literal["at least", "at most", "above", "below"]
_NUMBERS = Path(__file__).parent / "numbers"


@dataclass(frozen=True)
class Claim:
    """One expectation of a paper: a value found lies on the right side of a bar.

    Args:
        text: the expectation in words.
        found: the value with its interval; None where it could not be measured.
        sense: on which side of the bar it must lie; "above" and "below" leave out the bar itself.
        bar: in the units of `found`.
        unit: shares are shown in "%", differences of them in "points".
        paper: what the paper has there.
        detail: what else a reader must know.

    >>> Claim("better", Estimate(0.3, 0.2, 0.4), "at least", 0.25, "points").verdict
    'held, within its interval'
    >>> Claim("better", Estimate(0.0, 0.0, 0.0), "above", 0.0).verdict
    'not held'
    """

    text: str
    found: Estimate | None
    sense: Sense
    bar: float
    unit: str = "%"
    paper: str = ""
    detail: str = ""

    @property
    def needed(self) -> str:
        """The bar in words."""
        scale = 100 if self.unit in ("%", "points") else 1
        return f"{self.sense} {scale * self.bar:,.8g} {self.unit}".strip()

    @property
    def held(self) -> bool:
        """Whether the value found is on the right side."""
        return self.found is not None and self._fits(self.found.value)

    @property
    def verdict(self) -> str:
        """Whether it held, and whether the interval leaves that open."""
        if self.found is None:
            return "not measured"
        word = "held" if self.held else "not held"
        open_ = self._fits(self.found.low) != self._fits(self.found.high)
        return f"{word}, within its interval" if open_ else word

    def _fits(self, value: float) -> bool:
        sides = {"at least": value >= self.bar, "at most": value <= self.bar}
        return sides.get(self.sense, value > self.bar if self.sense == "above" else value < self.bar)

    def plain(self) -> dict[str, Any]:
        """The claim as plain data for `summary.json`."""
        return {
            "text": self.text,
            "needed": self.needed,
            "verdict": self.verdict,
            "held": self.held,
            "found": None if self.found is None else self.found.plain(),
            "unit": self.unit,
            "paper": self.paper,
            "detail": self.detail,
        }


def minus(
    text: str,
    values: Mapping[str, ArrayLike],
    one: str,
    other: str,
    sense: Sense = "above",
    bar: float = 0.0,
    unit: str = "points",
    **more: Any,
) -> Claim:
    """A claim on the mean difference of two models' values (N,) on the same samples; not measured without any.

    >>> minus("better", {"a": [1, 1, 1], "b": [0, 0, 0]}, "a", "b").held
    True
    """  # fmt: skip
    measured = one in values and np.size(values[one]) > 0
    found = mean_difference(values[one], values[other]) if measured else None
    return Claim(text, found, sense, bar, unit, **more)


def published(name: str) -> list[dict[str, str]]:
    """The rows of a file of published numbers.

    >>> published("yan2018_table1")[0]["method"]
    'reference'
    """
    path = _NUMBERS / f"{name}.csv"
    if not path.is_file():
        known = sorted(p.stem for p in _NUMBERS.glob("*.csv"))
        raise UsageError(f"there are no published numbers {name!r}: give one of {known}")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def published_shares(name: str, keys: Sequence[str], **only: str) -> dict[tuple[str, ...], float]:
    """The published accuracies of the rows that have these values, by other columns of theirs.

    >>> published_shares("ross2018_clean", ["model"], dataset="mnist")["normal",] > 0.98
    True
    """
    rows = [row for row in published(name) if all(row[key] == value for key, value in only.items())]
    return {tuple(row[key] for key in keys): float(row["accuracy_pct"]) / 100 for row in rows}


def in_words(value: float, unit: str = "%") -> str:
    """A published share or difference of shares in words; nothing for NaN.

    >>> in_words(0.123), in_words(0.123, "points"), in_words(float("nan"))
    ('12.3 %', '+12.3 points', '')
    """
    return "" if math.isnan(value) else f"{100 * value:{'+' if unit == 'points' else ''}.1f} {unit}"
