"""Train and test where the source has only one set: a rule that depends on nothing but the names."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from steadygrad.errors import UsageError

__all__ = ["holdout", "missing_split"]


def holdout(keys: Sequence[str], labels: Sequence[int], split: str, per_class: int | None = None) -> list[int]:
    """Positions of the train or test samples, in order.

    Within every class the samples are ranked by the SHA-256 of their key; the first fifth (or the
    first `per_class`) is the test split, the rest the training split. No random numbers, no
    dependence on the order or on samples of other classes.

    >>> keys = [f"{i:05d}" for i in range(10)]
    >>> len(holdout(keys, [0] * 10, "train")), holdout(keys, [0] * 10, "test")
    (8, [6, 9])
    """
    if split not in ("train", "test"):
        raise missing_split("data without splits of its own", split, ["train", "test"])
    members: dict[int, list[int]] = defaultdict(list)
    for i, label in enumerate(labels):
        members[label].append(i)
    test: set[int] = set()
    for indices in members.values():
        ranked = sorted(indices, key=lambda i: hashlib.sha256(keys[i].encode()).digest())
        count = per_class if per_class is not None else max(round(len(ranked) / 5), int(len(ranked) > 1))
        test.update(ranked[:count])
    return [i for i in range(len(labels)) if (i in test) == (split == "test")]


def missing_split(where: str, split: str, available: Iterable[str]) -> UsageError:
    """The error for a split that is not there, with those that are."""
    return UsageError(f"{where} has no split {split!r}; available: {', '.join(sorted(available)) or 'none'}")
