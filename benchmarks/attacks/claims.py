"""What the attacks of this library are meant to reach beside those of the others, and whether they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.attacks.tasks import OURS

__all__ = ["Claim", "claims"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """A figure and its limit; `holds` is None where there is nothing to compare with."""

    text: str
    value: float | None
    limit: float | None
    holds: bool | None


def claims(rows: Iterable[Row]) -> list[Claim]:
    """The claims about the attacks on the rows of a race; failed rows are left out.

    Where an attack is entered with several settings, the first entry is this library's own.
    """
    done = [row for row in rows if row["error"] is None]
    return [*_deepfool(done), *_jsma(done), *_carlini_wagner(done), *_followers(done), *_fab(done), *_within(done)]


def _deepfool(rows: list[Row]) -> list[Claim]:
    own, others = _split(rows, "DeepFool l2")
    if not own:
        return []
    first, speed = own[0], _fastest(others)
    return [
        _at_most("DeepFool l2: forwards per input", first["forwards"], 11),
        _at_most("DeepFool l2: backwards per input", first["backwards"], 25),
        _at_least("DeepFool l2: success", first["success"]["value"], 1.0),
        _at_most("DeepFool l2: median beside that of all classes", _part(first, own[1:], _median), 1.01),
        _at_most("DeepFool l2: median beside the best other", _part(first, _nearest(others), _median), 1.01),
        _at_least("DeepFool l2: times faster than the fastest other", _quotient(speed, first["cpu_ratio"]), 2),
    ]


def _jsma(rows: list[Row]) -> list[Claim]:
    own, others = _split(rows, "JSMA")
    if not own:
        return []
    best = max((row["success"]["value"] for row in others), default=None)
    made = []
    for name, row in zip(("JSMA", "JSMA by the target's logit alone"), own, strict=False):
        made += [
            _at_least(f"{name}: success, beside the best other", row["success"]["value"], best),
            _at_least(
                f"{name}: times faster than the fastest other", _quotient(_fastest(others), row["cpu_ratio"]), 10
            ),
        ]
    return made


def _carlini_wagner(rows: list[Row]) -> list[Claim]:
    own, others = _split(rows, "C&W l2")
    if not own:
        return []
    best = _nearest(others)
    return [
        _at_most("C&W l2: median beside the best other", _part(own[0], best, _median), 1.0),
        _at_most("C&W l2: passes beside that one", _part(own[0], best, _passes), 0.6),
    ]


def _followers(rows: list[Row]) -> list[Claim]:
    searched, _ = _split(rows, "C&W l2")
    made = []
    for task in ("DDN", "FMN l2"):
        own, _ = _split(rows, task)
        if own and searched:
            made.append(_at_most(f"{task}: median beside C&W's", _part(own[0], searched, _median), 1.01))
            made.append(_at_most(f"{task}: gradient steps", own[0]["backwards"], 100))
    return made


def _fab(rows: list[Row]) -> list[Claim]:
    own, others = _split(rows, "FAB linf")
    made = []
    for name, row in zip(("FAB linf", "FAB linf, half the steps"), own, strict=False):
        best = _nearest(others)
        made += [
            _at_most(f"{name}: median beside the best other", _part(row, best, _median), 1.0),
            _at_most(f"{name}: passes beside that one", _part(row, best, _passes), 1.0),
            _at_most(f"{name}: forwards beside that one", _part(row, best, lambda row: float(row["forwards"])), 1.0),
        ]
    return made


def _within(rows: list[Row]) -> list[Claim]:
    """The attacks within a radius: what momentum finds, and what a query of Square costs."""
    made = []
    own, others = _split(rows, "MI-FGSM")
    if own:
        best = max((row["success"]["value"] for row in others), default=None)
        made.append(_at_least("MI-FGSM: success, beside the best other", own[0]["success"]["value"], best))
    own, others = _split(rows, "Square")
    if own:
        fastest = min(map(_per_query, others), default=None)
        made.append(
            _at_most("Square: time of a query beside the fastest other", _quotient(_per_query(own[0]), fastest), 1.3)
        )
    return made


def _per_query(row: Row) -> float:
    return float(row["cpu_ratio"] / row["forwards"])


def _split(rows: list[Row], task: str) -> tuple[list[Row], list[Row]]:
    entered = [row for row in rows if row["task"] == task]
    return [r for r in entered if r["library"] == OURS], [r for r in entered if r["library"] != OURS]


def _median(row: Row) -> float | None:
    value: float | None = row["median"]["value"]
    return value


def _nearest(rows: list[Row]) -> list[Row]:
    """The row of the smallest median, if any found points for more than half of the images."""
    found = [row for row in rows if _median(row) is not None]
    return sorted(found, key=lambda row: float(row["median"]["value"]))[:1]


def _passes(row: Row) -> float:
    return float(row["forwards"] + row["backwards"])


def _fastest(others: list[Row]) -> float | None:
    # By the time of the processor: a machine that is shared slows one down more than another by the clock.
    return min((row["cpu_ratio"] for row in others), default=None)


def _part(row: Row, others: list[Row], of: Callable[[Row], float | None]) -> float | None:
    return _quotient(of(row), of(others[0])) if others else None


def _quotient(upper: float | None, lower: float | None) -> float | None:
    return None if upper is None or not lower else upper / lower


def _at_most(text: str, value: float | None, limit: float | None) -> Claim:
    return Claim(f"{text}, at most", value, limit, None if value is None or limit is None else value <= limit)


def _at_least(text: str, value: float | None, limit: float | None) -> Claim:
    return Claim(f"{text}, at least", value, limit, None if value is None or limit is None else value >= limit)
