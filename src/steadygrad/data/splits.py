"""Which part of the data is meant: splits by name, and a rule without random numbers where there is only one set."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from steadygrad.data.form import Form
from steadygrad.errors import UsageError

ROLES = {
    "test": ("test", "testing"),
    "validation": ("validation", "valid", "val", "eval", "evaluation", "dev"),
    "train": ("train", "training"),
}
"""What splits are for, with the names that say so."""
ALL = "all"
"""All samples of a source that has no splits."""


def role_of(name: str) -> str | None:
    """What a split of this name is for, in any case; None for another name.

    >>> role_of("Val"), role_of("fold1")
    ('validation', None)
    """
    return next((role for role, names in ROLES.items() if name.casefold() in names), None)


def meaning(split: str) -> str | None:
    """What a split is for by the words in its name; None if they say nothing, or several things.

    >>> meaning("seg_train"), meaning("val2017"), meaning("trainval"), meaning("train-val")
    ('train', 'validation', None, None)
    """
    found = {role_of(word) for word in re.split(r"[^a-z]+", split.casefold())} - {None}
    return found.pop() if len(found) == 1 else None


class Part(NamedTuple):
    """A split by the name that the source has for it (None: all there is), and the `held` part of it, if not all."""

    split: str | None
    held: str | None = None

    @property
    def name(self) -> str:
        """What the data set calls it."""
        return self.held or self.split or ALL

    def note(self, asked: str | None) -> str | None:
        """What people should know: which split stands in, or what is held out."""
        if self.held is not None:
            there = "there are no splits" if self.split is None else f"there is {self.split} only"
            return f"{there}: a fifth of every class, chosen by a hash of its name, is held out as test"
        if asked is None and self.split is not None and meaning(self.split) == "validation":
            return f"there is no split called test: {self.split} stands in for it"
        return None


class Asked(NamedTuple):
    """What a caller asks of a source: a split (None as `part_of` says), whether to train on it, a form, and a range.

    With `verify` the hashes of files are made anew.
    """

    split: str | None
    training: bool = False
    form: Form = Form()
    bounds: tuple[float, float] | None = None
    verify: bool = False

    def part(self, where: str, available: Iterable[str] = ()) -> Part:
        """The part of a source with these splits that is meant."""
        return part_of(where, self.split, available, training=self.training)


def part_of(where: str, asked: str | None, available: Iterable[str], *, training: bool = False) -> Part:
    """The part of a source that is meant.

    Args:
        where: what errors call the source.
        asked: a name, in any case, or one of the same meaning; of a source without splits also "train" and "test", its
            two parts by `holdout`, and "all". None is what a model is judged on: test, else validation, else
            the part that is held out of the only one.
        available: the names of its splits; none if it is not divided.
        training: None is what a model is trained on instead: train, without what is held out of it.

    Raises:
        UsageError: there is no such split, or several are meant.

    >>> part_of("pets", "valid", ["train", "Val"])
    Part(split='Val', held=None)
    >>> part_of("pets", None, ["train"])
    Part(split='train', held='test')
    """
    names, wanted = sorted(available), "train" if training else "test"
    if not names:
        held = wanted if asked is None else role_of(asked)
        if asked != ALL and held not in ("train", "test"):
            raise missing_split(where, str(asked), ["train", "test", ALL])
        return Part(None, None if asked == ALL else held)
    if asked is not None:
        return Part(_named(where, asked, names))
    if len(names) == 1 and meaning(names[0]) == "train":
        return Part(names[0], wanted)
    roles = ("train",) if training else ("test", "validation")
    found = [name for role in roles for name in names if meaning(name) == role]
    if not found:
        what = "train on (--train-split NAME)" if training else "judge on (--split NAME)"
        raise UsageError(f"{where} has the splits {', '.join(names)}: say which one to {what}")
    return Part(found[0])


def _named(where: str, asked: str, names: Sequence[str]) -> str:
    meant = [name for name in names if name == asked] or [n for n in names if n.casefold() == asked.casefold()]
    if not meant and (role := role_of(asked)) is not None:
        meant = [name for name in names if meaning(name) == role]
    if not meant:
        raise missing_split(where, asked, names)
    if len(meant) > 1:
        raise UsageError(f"{where} has the splits {' and '.join(meant)}, of which {asked!r} means either: name one")
    return meant[0]


def numbered(prefix: str, rows: Iterable[int]) -> tuple[str, ...]:
    """Sample ids by position: prefix00017."""
    return tuple(f"{prefix}{i:05d}" for i in rows)


def holdout(
    labels: Sequence[int], split: str | None, keys: Sequence[str] | None = None, *, per_class: int | None = None
) -> list[int]:
    """Positions of the train or test samples, in order; of all for None.

    Within every class the samples are ranked by the SHA-256 of their key (by default their position:
    "00017"); the first fifth (or the first `per_class`) is the test split, the rest the training
    split. Neither the order of the samples nor those of other classes matter.

    >>> len(holdout([0] * 10, "train")), holdout([0] * 10, "test")
    (8, [6, 9])
    """
    if split is None:
        return list(range(len(labels)))
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
