"""Which of two maps is preferred: pair by pair, and on one scale where there are several."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steadygrad.audit.schema_people import Preference, Rank
from steadygrad.study.clusters import numbered, share

if TYPE_CHECKING:
    import pandas as pd

_DRAWS = 1000
_RIDGE = 1e-2  # keeps the strength of what always wins finite


def preferences(maps: pd.DataFrame) -> list[Preference]:
    """Each pair of what was shown: how often the first was preferred, among the answers that prefer one."""
    from scipy.stats import binomtest

    found = []
    names = sorted({*maps["left"], *maps["right"]})
    for first, second in itertools.combinations(names, 2):
        rows = maps[maps["left"].isin((first, second)) & maps["right"].isin((first, second))]
        if not len(rows):
            continue
        decided = rows[rows["preferred"].notna()]
        leans = (decided["preferred"] == first).astype(int) - (decided["preferred"] == second).astype(int)
        by_person = leans.groupby(decided["person"]).sum()
        for_first, for_second = int((by_person > 0).sum()), int((by_person < 0).sum())
        p = float(binomtest(for_first, for_first + for_second).pvalue) if for_first + for_second else 1.0
        found.append(
            Preference(
                first=first,
                second=second,
                answers=len(rows),
                undecided=len(rows) - len(decided),
                preferred=int((decided["preferred"] == first).sum()),
                share=share(decided["preferred"] == first, decided["person"], decided["sample"]),
                persons_for_first=for_first,
                persons_for_second=for_second,
                p=min(1.0, p),
            )
        )
    return found


def ranks(maps: pd.DataFrame) -> list[Rank]:
    """The Bradley-Terry scales of more than two things: the chance to be preferred to the middle one, strongest first.

    What was compared, directly or by way of third ones, is on one scale. The intervals are of a bootstrap over persons;
    no difference counts half for each side. Nothing for one person.
    """
    from scipy.sparse.csgraph import connected_components

    names, persons = sorted({*maps["left"], *maps["right"]}), numbered(maps["person"])
    people = int(persons.max(initial=-1)) + 1
    place = {name: index for index, name in enumerate(names)}
    wins = np.zeros((people, len(names), len(names)))
    for person, left, right, preferred in zip(persons, maps["left"], maps["right"], maps["preferred"], strict=True):
        for a, b in ((left, right), (right, left)):
            wins[person, place[a], place[b]] += 0.5 if preferred is None else float(preferred == a)
    total = wins.sum(0)
    count, scales = connected_components(total + total.T)
    found = []
    for scale in range(count):
        (among,) = np.nonzero(scales == scale)
        if len(among) > 2 and people > 1:
            ranked = _ranked(wins[:, among][:, :, among], [names[index] for index in among])
            found += [Rank(scale=scale, **rank) for rank in sorted(ranked, key=lambda rank: -rank["value"])]
    return found


def _ranked(wins: NDArray[np.float64], names: list[str]) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    drawn = [_chances(wins[generator.integers(0, len(wins), len(wins))].sum(0)) for _ in range(_DRAWS)]
    values, (low, high) = _chances(wins.sum(0)), np.quantile(drawn, [0.025, 0.975], axis=0)
    rows = zip(names, values.tolist(), low.tolist(), high.tolist(), strict=True)
    return [{"name": name, "value": v, "low": min(v, a), "high": max(v, b)} for name, v, a, b in rows]


def _chances(wins: NDArray[np.float64]) -> NDArray[np.float64]:
    """The chance (K,) of each to be preferred to the middle one, from how often row was preferred to column (K, K)."""
    games, strength = wins + wins.T, np.zeros(len(wins))
    for _ in range(30):
        p = 1 / (1 + np.exp(strength[None] - strength[:, None]))
        weights = games * p * (1 - p)
        gradient = (wins - games * p).sum(1) - _RIDGE * strength
        step = np.linalg.solve(np.diag(weights.sum(1) + _RIDGE) - weights, gradient)
        strength = strength + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-6:
            break
    found: NDArray[np.float64] = 1 / (1 + np.exp(strength.mean() - strength))
    return found
