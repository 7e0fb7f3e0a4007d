"""Who and what is left out, by rules that are fixed before anybody answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from steadygrad.plans import Plan

if TYPE_CHECKING:
    import pandas as pd


class Rules(Plan):
    """The rules of a study, written in its file when it is made.

    >>> Rules(fastest=1.0).quick
    0.1
    """

    what: ClassVar[str] = "the rules of a study"

    finished: Annotated[bool, Field(description="leave out persons who did not finish")] = True
    attention: Annotated[int, Field(ge=0, description="the most wrong attention checks of a person who stays")] = 0
    fastest: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="leave out answers quicker than this, in seconds")
    ] = 0.5
    quick: Annotated[float, Field(ge=0, le=1, description="leave out persons with a larger share of these")] = 0.1


@dataclass(frozen=True)
class Kept:
    """What is left.

    Attributes:
        table: the answers that stay.
        persons: how many were left out, by reason; each counts under the first that holds.
        answers: how many single answers were left out of those who stay.
    """

    table: pd.DataFrame
    persons: dict[str, int]
    answers: int


def exclude(table: pd.DataFrame, rules: Rules) -> Kept:
    """The answers that the rules leave, of a checked table; practice stays out of all counts."""
    table = table[table["kind"] != "practice"]
    quick = table["seconds"] < rules.fastest
    wrong = (table["kind"] == "attention") & (table["correct"] == False).fillna(False)  # noqa: E712 (null is neither)
    by_person = table["person"]
    reasons = {
        "did not finish": ~table["finished"].groupby(by_person).all() & rules.finished,
        "wrong attention checks": wrong.groupby(by_person).sum() > rules.attention,
        "too quick": quick.groupby(by_person).mean() > rules.quick,
    }
    out: set[str] = set()
    persons = {}
    for reason, found in reasons.items():
        new = set(found.index[found.astype(bool)]) - out
        persons[reason] = len(new)
        out |= new
    stays = ~by_person.isin(out)
    return Kept(table[stays & ~quick].reset_index(drop=True), persons, int((stays & quick).sum()))
