"""What the answers of a study say: every number with its interval and its counts, a pure function of the table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from steadygrad import __version__
from steadygrad.audit.schema_people import (
    Agreement,
    Between,
    Contrast,
    Control,
    Judged,
    LeftOut,
    Odds,
    People,
    Score,
    Spread,
)
from steadygrad.measuring.statistics import Estimate
from steadygrad.study import mixed_logit
from steadygrad.study.agreement import alpha
from steadygrad.study.answers_table import checked
from steadygrad.study.clusters import difference, share
from steadygrad.study.exclusions import Rules, exclude
from steadygrad.study.mixed_logit import LARGEST, MixedLogit
from steadygrad.study.preferences import preferences, ranks

if TYPE_CHECKING:
    import pandas as pd

_SCORES: tuple[Score, ...] = ("fooled", "reasonable")
_ABOUT: tuple[Literal["fooled", "reasonable", "best"], ...] = ("fooled", "reasonable", "best")
_LARGEST_LOG = 30.0  # of odds: what lies beyond says nothing more


def judge(
    table: pd.DataFrame,
    rules: Rules | None = None,
    *,
    title: str = "",
    models: Sequence[str] = (),
) -> People:
    """All estimates of a table of answers.

    Args:
        rules: who and what is left out, as the study's file says; None for the usual rules, which the page tells.
        title: what the study is called.
        models: names that the study shows, which are listed though nobody has answered.

    Raises:
        UsageError: the table has no answers, or is none.
    """
    table = checked(table)
    kept = exclude(table, rules or Rules())
    rows = kept.table
    labels, maps = rows[rows["kind"] == "labels"], rows[rows["kind"] == "maps"]
    # Whom nobody judged is told as that.
    names = list(dict.fromkeys([*models, *sorted(table.loc[table["kind"] == "labels", "model"].unique())]))
    decided = maps[maps["preferred"].notna()]
    logits = {score: _logit(labels, score) for score in _SCORES}
    return People(
        schema=1, version=__version__, sha256=None, title=title,
        languages=sorted(rows["language"].unique()),
        persons=int(rows["person"].nunique()), answers=len(rows),
        seconds=float(rows["seconds"].median()) if len(rows) else None,
        models=_judged(labels, names),
        contrasts=[
            _contrast(labels, logits[score], first, second, score)
            for score in _SCORES for first, second in itertools.combinations(names, 2)
        ],
        spreads=[
            Spread(score=score, persons=found.spreads[0], images=found.spreads[1])
            for score, logit in logits.items() if (found := logit.fit) is not None
        ],
        agreement=_agreement(labels),
        preferences=preferences(maps), ranks=ranks(maps),
        left=share(decided["preferred"] == decided["left"], decided["person"], decided["sample"]),
        clean=_control(rows),
        excluded=LeftOut(
            rules=(rules or Rules()).model_dump(), fixed=rules is not None, persons=kept.persons, answers=kept.answers
        ),
    )  # fmt: skip


def _judged(labels: pd.DataFrame, names: Sequence[str]) -> list[Judged]:
    attacks = sorted(labels["attack"].dropna().unique())
    found = []
    for name in names:
        rows = labels[labels["model"] == name]
        found.append(_row(rows, name, None))
        if len(attacks) > 1:
            found += [_row(part, name, attack) for attack in attacks if len(part := rows[rows["attack"] == attack])]
    return found


def _row(rows: pd.DataFrame, model: str, attack: str | None) -> Judged:
    scores = {score: rows[score].astype(bool) for score in _SCORES}
    shares = {score: share(values, rows["person"], rows["sample"]) for score, values in scores.items()}
    return Judged(
        model=model, attack=attack, answers=len(rows),
        persons=int(rows["person"].nunique()), images=int(rows["sample"].nunique()),
        hits={score: int(values.sum()) for score, values in scores.items()}, **shares,
    )  # fmt: skip


@dataclass(frozen=True)
class _Logit:
    """The mixed logit of a score and the models that it compares, or why there is none."""

    models: Sequence[str]
    fit: MixedLogit | None = None
    note: str = ""


def _logit(labels: pd.DataFrame, score: Score) -> _Logit:
    # About the odds of what is all alike an infinite ratio would be all that is known.
    mixed = [str(name) for name, rows in labels.groupby("model") if rows[score].nunique() == 2]
    rows = labels[labels["model"].isin(mixed)]
    persons, stimuli = (int(rows[column].nunique()) for column in ("person", "stimulus"))
    if len(mixed) < 2 or min(persons, stimuli) < 3:
        return _Logit((), note=f"too few: {persons} persons, {stimuli} stimuli")
    if persons + stimuli > LARGEST:
        return _Logit((), note=f"not computed for more than {LARGEST:,} persons and stimuli together")
    design = _dummies(rows["model"], mixed)
    more = np.hstack([design, _dummies(rows["attack"], sorted(rows["attack"].dropna().unique())[1:])])
    # An attack that only one model was shown with cannot be told from the model.
    if np.linalg.matrix_rank(more) == more.shape[1]:
        design = more
    return _Logit(mixed, mixed_logit.fit(rows[score].astype(bool), design, rows["person"], rows["stimulus"]))


def _dummies(values: pd.Series, names: Sequence[str]) -> NDArray[np.float64]:
    return np.array([values == name for name in names], dtype=np.float64).reshape(len(names), len(values)).T


def _contrast(labels: pd.DataFrame, logit: _Logit, first: str, second: str, score: Score) -> Contrast:
    one, two = (labels[labels["model"] == name] for name in (first, second))
    gap = difference(
        one[score].astype(bool), two[score].astype(bool),
        (one["person"], two["person"]), (one["sample"], two["sample"]),
    )  # fmt: skip
    alike = [name for name, rows in ((first, one), (second, two)) if rows[score].nunique() < 2]
    odds, note = None, f"all answers about {' and '.join(alike)} are the same" if alike else logit.note
    if not (len(one) and len(two)):
        note = "no answers"
    elif logit.fit is not None and not alike:
        weights = np.zeros(len(logit.fit.effects))
        weights[logit.models.index(first)], weights[logit.models.index(second)] = 1, -1
        log = logit.fit.contrast(weights)
        value, low, high = (math.exp(max(-_LARGEST_LOG, min(_LARGEST_LOG, e))) for e in (log.value, log.low, log.high))
        odds = Odds(value=value, low=low, high=high)
    return Contrast(first=first, second=second, score=score, difference=_ends(gap), odds=odds, note=note)


def _ends(found: Estimate | None) -> Between | None:
    return None if found is None else Between(value=found.value, low=found.low, high=found.high)


def _agreement(labels: pd.DataFrame) -> list[Agreement]:
    several = labels[labels.groupby("stimulus")["person"].transform("nunique") > 1]
    found = []
    for about in _ABOUT:
        values = several["best"].fillna("") if about == "best" else several[about].astype(str)
        value = alpha(values, several["stimulus"])
        stimuli = int(several["stimulus"].nunique())
        found.append(Agreement(about=about, stimuli=stimuli, answers=len(several), alpha=_ends(value)))
    return found


def _control(rows: pd.DataFrame) -> Control | None:
    found = rows[(rows["kind"] == "clean") & rows["correct"].notna()]
    if not len(found):
        return None
    right = found["correct"].astype(bool)
    return Control(answers=len(found), right=int(right.sum()), correct=share(right, found["person"], found["sample"]))
