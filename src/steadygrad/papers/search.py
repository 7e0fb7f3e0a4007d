"""The one search for the weights of defenses: candidates are trained and scored on data they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Tried(Generic[T]):
    """A candidate with its clean accuracy and the score that decides, both on held-out data."""

    settings: T
    accuracy: float
    score: float


@dataclass(frozen=True)
class Rule:
    """What makes a candidate the chosen one: the best score at an accuracy that is not much below the reference's.

    Args:
        accuracy: of the model that is trained without the defense.
        allowed: how much of it a candidate may lose.
    """

    accuracy: float
    allowed: float

    def fits(self, row: Tried[Any]) -> bool:
        """Whether a candidate is accurate enough."""
        return row.accuracy >= self.accuracy - self.allowed

    def choice(self, rows: Sequence[Tried[T]]) -> Tried[T]:
        """The row of the best score among those that are accurate enough; where none is, the most accurate.

        >>> rows = [Tried(1, accuracy=0.99, score=0.2), Tried(9, accuracy=0.8, score=0.9)]
        >>> Rule(accuracy=0.99, allowed=0.01).choice(rows).settings
        1
        """
        fitting = [row for row in rows if self.fits(row)]
        return max(fitting, key=lambda r: r.score) if fitting else max(rows, key=lambda r: r.accuracy)


@dataclass(frozen=True)
class Search(Generic[T]):
    """All candidates that were tried, the chosen one, and the rule that chose it."""

    rows: Sequence[Tried[T]]
    chosen: Tried[T]
    rule: Rule


def search(
    candidates: Iterable[T], scores: Callable[[T], tuple[float, float]], rule: Rule, *, climb: bool = False
) -> Search[T]:
    """Try all candidates in order, or climb: until one is no better than the last or not accurate enough.

    Args:
        candidates: settings; a climb expects them from the smallest effect on.
        scores: trains with settings and gives accuracy and score on held-out data.
        rule: chooses, and says whether a candidate is accurate enough.

    >>> found = search([1, 2, 3, 4], lambda n: (1.0, float(min(n, 2))), Rule(1.0, 0.5), climb=True)
    >>> [row.settings for row in found.rows], found.chosen.settings
    ([1, 2, 3], 2)
    """
    rows: list[Tried[T]] = []
    for settings in candidates:
        rows.append(Tried(settings, *scores(settings)))
        if climb and (not rule.fits(rows[-1]) or (rows[1:] and rows[-1].score <= rows[-2].score)):
            break
    return Search(rows, rule.choice(rows), rule)
