"""Train and test where the source has only one set, by a rule without random numbers."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from steadygrad.errors import UsageError


def numbered(prefix: str, rows: Iterable[int]) -> tuple[str, ...]:
    """Sample ids by position: prefix00017."""
    return tuple(f"{prefix}{i:05d}" for i in rows)


def holdout(
    labels: Sequence[int], split: str, keys: Sequence[str] | None = None, *, per_class: int | None = None
) -> list[int]:
    """Positions of the train or test samples, in order.

    Within every class the samples are ranked by the SHA-256 of their key (by default their position:
    "00017"); the first fifth (or the first `per_class`) is the test split, the rest the training
    split. Neither the order of the samples nor those of other classes matter.

    >>> len(holdout([0] * 10, "train")), holdout([0] * 10, "test")
    (8, [6, 9])
    """
    if split not in ("train", "test"):
        raise missing_split("data without splits of its own", split, ["train", "test"])
    keys = numbered("", range(len(labels))) if keys is None else keys
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
