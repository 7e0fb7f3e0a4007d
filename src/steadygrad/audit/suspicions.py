"""Signs that a model is judged otherwise than it was trained: its inputs, or the order of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steadygrad.measuring.measures.first_norm import FirstNorm, shift
from steadygrad.measuring.runner import Tables
from steadygrad.measuring.statistics import share_of, wilson
from steadygrad.measuring.table import Array, Table

SPREAD = 1.6
"""By how much the spread of activations may differ from that in training; without normalization it is about 2 to 5."""
SHIFT = 1.0
"""How far their mean may be from that in training, in standard deviations."""
_LEAST = 10


def suspicions(tables: Tables, model: str, attacked: Table, rows: Sequence[int], classes: Sequence[str]) -> list[Any]:
    """What is found of one model, as in `models.findings` of the summary.

    Args:
        attacked: the table of an attack on all samples, for the clean predictions.
        rows: places of the samples whose activations are looked at.
        classes: among which is judged.
    """
    norms = tables.run(FirstNorm(), model, rows=rows)
    found = {
        "accuracy": at_chance(attacked["clean_prediction"] == attacked["label"], len(classes)),
        "class order": reordered(attacked["label"], attacked["clean_prediction"], classes),
        "normalization": unlike_training(norms),
    }
    return [{"about": about, "warning": True, "text": text} for about, text in found.items() if text]


def at_chance(right: Array, classes: int) -> str:
    """A sentence if accuracy is not shown to be above that of a guess: the interval reaches down to 1 / classes.

    >>> at_chance(np.array([True] * 90 + [False] * 10), 10)
    ''
    """
    clean = share_of(right)
    if clean.low > 1 / classes:
        return ""
    below = "is below" if clean.high < 1 / classes else "is not shown to be above"
    return (
        f"the accuracy without attack, {clean}, {below} chance ({100 / classes:.3g} % among {classes:,} classes): are "
        "the inputs normalized as in the training (mean, std, bounds), and are the classes in the order of its outputs?"
    )


def reordered(labels: Array, predictions: Array, classes: Sequence[str]) -> str:
    """A sentence if the predictions fit the labels in another order of the classes.

    The order is taken from every other sample, and its accuracy from those between, where it must be shown to be
    above that of the order which is there.

    >>> labels = np.arange(60) % 3
    >>> reordered(labels, (labels + 1) % 3, ["a", "b", "c"]).partition(":")[0]
    'in another order of the classes the accuracy without attack would be 100.0 % [88.6, 100.0], not 0.0 % [0.0, 6.0]'
    """
    from scipy.optimize import linear_sum_assignment

    place = np.arange(len(labels))
    # Samples of each class in turn, so that both halves have all.
    order = np.argsort(labels, kind="stable")
    half = np.zeros(len(labels), dtype=bool)
    half[order] = place % 2 == 0
    present, columns = np.unique(labels), np.unique(predictions)
    counts = np.array([[int(((labels == c) & (predictions == p) & half).sum()) for p in columns] for c in present])
    taken, given = linear_sum_assignment(-counts)
    meant = {int(present[c]): int(columns[p]) for c, p in zip(taken, given, strict=True) if counts[c, p]}
    hits = np.array([meant.get(int(c)) == int(p) for c, p in zip(labels, predictions, strict=True)], dtype=bool)[~half]
    moved = {c: p for c, p in meant.items() if c != p}
    if not len(hits) or not moved:
        return ""
    here, there = share_of(labels == predictions), wilson(int(hits.sum()), len(hits))
    if there.low <= here.high:
        return ""
    pairs = ", ".join(f"{classes[c]} is predicted as {classes[p]}" for c, p in list(moved.items())[:4])
    return (
        f"in another order of the classes the accuracy without attack would be {there}, not {here}: {pairs}"
        f"{', ...' if len(moved) > 4 else ''}; give the classes in the order of its outputs"
    )


def unlike_training(norms: Table) -> str:
    """A sentence if what reaches the first batch normalization is unlike what it saw in training."""
    far, spread = shift(norms)
    if len(norms) < _LEAST or not (far > SHIFT or not 1 / SPREAD < spread < SPREAD) or spread != spread:
        return ""
    return (
        f"what reaches the first batch normalization is unlike its training: in the median channel {far:.2g} standard "
        f"deviations off, with {spread:.2g} times the spread; are the inputs normalized as in the training (mean, std, "
        "bounds)?"
    )
