"""Which of two maps is preferred: pair by pair, and on one scale where there are several."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steadygrad.audit.schema_people import Preference, Rank
from steadygrad.study.clusters import share

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
    """The Bradley-Terry scale of more than two things: the chance to be preferred to the middle one, strongest first.

    The intervals are of a bootstrap over persons; no difference counts half for each side. Nothing for one person, or
    where some were never compared with the others, not even by way of third ones.
    """
    from scipy.sparse.csgraph import connected_components

    names = sorted({*maps["left"], *maps["right"]})
    persons, rows = np.unique(maps["person"].to_numpy(dtype=object).astype(str), return_inverse=True)
    place = {name: index for index, name in enumerate(names)}
    wins = np.zeros((len(persons), len(names), len(names)))
    for person, left, right, preferred in zip(rows, maps["left"], maps["right"], maps["preferred"], strict=True):
        for a, b in ((left, right), (right, left)):
            wins[person, place[a], place[b]] += 0.5 if preferred is None else float(preferred == a)
    total = wins.sum(0)
    if len(names) < 3 or len(persons) < 2 or connected_components(total + total.T)[0] > 1:
        return []
    generator = np.random.default_rng(0)
    drawn = [_chances(wins[generator.integers(0, len(persons), len(persons))].sum(0)) for _ in range(_DRAWS)]
    values, (low, high) = _chances(total), np.quantile(drawn, [0.025, 0.975], axis=0)
    found = [
        Rank(name=name, value=value, low=min(value, a), high=max(value, b))
        for name, value, a, b in zip(names, values.tolist(), low.tolist(), high.tolist(), strict=True)
    ]
    return sorted(found, key=lambda rank: -rank.value)


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
