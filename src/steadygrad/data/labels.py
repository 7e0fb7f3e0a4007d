"""Which classes there are: as they are named, or counted from labels, which are places of classes from 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steadygrad.errors import UsageError
from steadygrad.kinds import MOST_CLASSES

Named = tuple[tuple[str, ...], tuple[str, ...]]
"""Class names, and what people should know of them."""

_GAP = 10
IGNORED = 255
"""What -1 is in a byte: samples with it are to be ignored."""
_SHOWN = 4


def classes_of(
    classes: Sequence[str] | int | None, labels: Tensor, where: str, place: Callable[[int], str], named_by: str
) -> Named:
    """Class names as given, or numbers up to the given count or the largest of the labels (N,).

    Labels that do not occur, and names that do so twice, are told. A label apart from all others, farther than there
    are labels, is no place of a class, nor is 255 ten places after the one before: they are asked about. Negative
    labels are left for the data set.

    Args:
        where: what errors call the labels.
        place: what errors call a sample.
        named_by: how the data say their classes.

    Raises:
        UsageError: such a label, or more classes than `MOST_CLASSES`.

    >>> classes_of(None, torch.tensor([0, 1, 3]), "y", "sample {}".format, "classes=N")
    (('0', '1', '2', '3'), ('of the labels 0 to 3, 1 does not occur: 2',))
    """
    if classes is not None:
        names = tuple(map(str, range(classes) if isinstance(classes, int) else classes))
        return names, repeated(names)
    values, counts = torch.unique(labels[labels >= 0], return_counts=True)
    if not len(values):
        return ("0",), ()
    gaps = values - torch.cat([torch.tensor([-1]), values[:-1]]) - 1
    worst = int(gaps.argmax())
    largest, last = int(values[-1]), len(values) - 1
    if largest == IGNORED and int(gaps[last]) >= _GAP:
        worst, allowed = last, 0
    else:
        allowed = max(_GAP, len(values))
    if int(gaps[worst]) > allowed:
        label, before = int(values[worst]), int(values[worst - 1]) if worst else None
        first = place(int((labels == label).nonzero()[0]))
        after = "is the smallest" if before is None else f"comes after {before}"
        raise UsageError(
            f"the label {label} of {where} {after}: {int(counts[worst])} of {len(labels)} samples have it, the first "
            f"is {first}. If it marks samples without a label, leave them out (keep = y != {label}); if it is a place "
            f"among all classes, say them ({named_by}); if labels are codes, number them: codes, y = np.unique(y, "
            "return_inverse=True)"
        )
    if largest >= MOST_CLASSES:
        raise UsageError(
            f"the labels of {where} reach {largest}, and there may be {MOST_CLASSES:,} classes at most: number those "
            "that occur, codes, y = np.unique(y, return_inverse=True)"
        )
    return tuple(map(str, range(largest + 1))), _missing(values, largest)


def classes_of_all(parts: Mapping[Any, Tensor], where: str, named_by: str) -> Named:
    """The same of all parts of the data, by what errors call them: a class may be absent from one of them."""

    def place(i: int) -> str:
        for name, labels in parts.items():
            if i < len(labels):
                return f"row {i} of {name}"
            i -= len(labels)
        raise IndexError(i)

    return classes_of(None, torch.cat([*parts.values()]), where, place, named_by)


def repeated(names: Sequence[str]) -> tuple[str, ...]:
    """What people should know where several classes have one name, but for blanks around it."""
    counts = Counter(name.strip() for name in names)
    several = [repr(name) for name, count in counts.items() if count > 1]
    if not several:
        return ()
    return (f"several classes are called {', '.join(several[:_SHOWN])}{', ...' if len(several) > _SHOWN else ''}",)


def _missing(values: Tensor, largest: int) -> tuple[str, ...]:
    occurs = torch.zeros(largest + 1, dtype=torch.bool)
    occurs[values] = True
    absent = (~occurs).nonzero().flatten().tolist()
    if not absent:
        return ()
    some = ", ".join(map(str, absent[:_SHOWN])) + (", ..." if len(absent) > _SHOWN else "")
    do = "does" if len(absent) == 1 else "do"
    return (f"of the labels 0 to {largest}, {len(absent)} {do} not occur: {some}",)


def unlabeled(label: int) -> str:
    """What a label that is no class may stand for; empty for most."""
    if label not in (-1, IGNORED):
        return ""
    often = "" if label < 0 else "often "
    return f" ({label} {often}marks unlabeled samples: leave them out, or choose a labeled split)"
