"""Shares of answers with intervals that hold although the answers of a person, and those about an image, hang together.

Answers come in two sorts of groups that cross: persons and images. An interval that counts each answer as a sample of
its own is too narrow, and so is one that draws persons alone. The variance here is that of both groupings (Cameron,
Gelbach & Miller 2011, J. Bus. Econ. Stat. 29:238); the share's interval is Wilson's for the number of independent
answers that would vary as much, by Student's t for the smaller number of groups. `benchmarks/judgements.py` counts how
often it holds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadygrad.audit.schema_people import AnswerShare
from steadygrad.measuring.statistics import Estimate, bootstrap, wilson

Places = NDArray[np.int64]


def share(hits: Any, persons: Any, images: Any) -> AnswerShare | None:
    """The share of True among hits (N,), answers of persons (N,) about images (N,); None where there are too few.

    Less than two persons or two images say nothing about others.

    >>> found = share([True, False, True, True], ["a", "a", "b", "b"], [1, 2, 1, 2])
    >>> found.value, found.count, found.persons, found.images
    (0.75, 4, 2, 2)
    """
    values = np.asarray(hits, dtype=np.float64)
    groups = [numbered(persons), numbered(images)]
    sizes = [int(g.max(initial=-1)) + 1 for g in groups]
    if min(sizes) < 2:
        return None
    count, value = len(values), float(values.mean())
    alone = wilson(int(values.sum()), count)
    variance, single = two_way(values - value, *groups), count / (count - 1) * float(np.square(values - value).sum())
    # What is all alike tells nothing of how answers hang together.
    fewer = max(1.0, variance / single) if single else 1.0
    low, high = _wilson(value, count / fewer, student(min(sizes)))
    return AnswerShare(
        value=value, low=min(low, value), high=max(high, value), count=count, persons=sizes[0], images=sizes[1],
        independent=count / fewer, wilson=(alone.low, alone.high), by_persons=_by_persons(values, groups[0]),
    )  # fmt: skip


def difference(first: Any, second: Any, persons: tuple[Any, Any], images: tuple[Any, Any]) -> Estimate | None:
    """The share of True among first (N,) minus that among second (M,), each with its persons and images.

    Persons and images may be the same on both sides.

    The interval is by the variance of both groupings, never below that of independent answers (with one hit and one
    miss added to each, so that shares of 0 and 1 have a width); None where there are too few.

    >>> found = difference([True, True, False], [False, False, True], (["a", "b", "c"],) * 2, ([1, 2, 3],) * 2)
    >>> round(found.value, 2), found.includes_zero
    (0.33, True)
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (first, second)]
    fewest = min(len(set(group)) for group in (*persons, *images))
    if fewest < 2:
        return None
    # The influence of each answer on the difference.
    parts = [sign * (side - side.mean()) / len(side) for sign, side in zip((1, -1), sides, strict=True)]
    groups = [numbered(np.concatenate([np.asarray(g, dtype=object) for g in pair])) for pair in (persons, images)]
    added = [(side.sum() + 1) / (len(side) + 2) for side in sides]
    least = sum(p * (1 - p) / (len(side) + 2) for p, side in zip(added, sides, strict=True))
    spread = math.sqrt(max(least, two_way(np.concatenate(parts), *groups)))
    half = student(fewest) * spread
    value = float(sides[0].mean() - sides[1].mean())
    return Estimate(value, value - half, value + half).within(-1.0, 1.0)


def two_way(residuals: NDArray[np.float64], first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """The variance of the sum of residuals (N,) that hang together within groups (N,) of two sorts.

    That of single answers is in both, and is taken off once; what is left is at least that of either alone.
    """
    alone = len(residuals) / (len(residuals) - 1) * float(np.square(residuals).sum())
    grouped = []
    for groups in (first, second):
        count = int(groups.max()) + 1
        grouped.append(count / (count - 1) * float(np.square(np.bincount(groups, residuals)).sum()))
    return max(*grouped, sum(grouped) - alone)


def student(groups: int) -> float:
    """The 97.5 % point of Student's t for a number of groups."""
    from scipy.stats import t

    return float(t.ppf(0.975, groups - 1))


def _wilson(value: float, count: float, point: float) -> tuple[float, float]:
    square = point * point / count
    middle = (value + square / 2) / (1 + square)
    half = math.sqrt(value * (1 - value) * square + square * square / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def _by_persons(values: NDArray[np.float64], persons: NDArray[np.int64]) -> tuple[float, float]:
    """The interval of a bootstrap that draws persons with all their answers."""

    def ratio(hits: Any, counts: Any, axis: int) -> Any:
        return hits.sum(axis) / counts.sum(axis)

    drawn = bootstrap(ratio, np.bincount(persons, values), np.bincount(persons))
    return drawn.low, drawn.high


def numbered(groups: Any) -> Places:
    """Groups by numbers from 0.

    >>> numbered(["b", "a", "b"]).tolist()
    [1, 0, 1]
    """
    found: Places = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]
    return found.astype(np.int64)
