"""Data from folders of image files, one folder per class."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from steadygrad.data.dataset import Dataset
from steadygrad.data.hashes import Hashes
from steadygrad.data.image_files import Files, stack
from steadygrad.data.settle import Look
from steadygrad.data.splits import Asked, holdout, meaning, role_of
from steadygrad.errors import UsageError

# Of files that Pillow reads as images, whatever the system.
ENDINGS = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
_LEFT_BY_SYSTEMS = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found"})


@dataclasses.dataclass(eq=False)
class Tree:
    """A folder: the images in it, the other files that are not hidden, and its folders, by name.

    Files are told by their paths below the outermost folder, as texts, which of a million take a third of the memory.
    `changed` is when the last file came into the folder or left it, in nanoseconds.
    """

    path: Path
    changed: int = 0
    images: list[str] = dataclasses.field(default_factory=list)
    others: list[str] = dataclasses.field(default_factory=list)
    folders: dict[str, Tree] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(path: Path, below: str = "", above: tuple[str, ...] = ()) -> Tree:
        """Look at a folder and all below it; links are followed, but not in circles."""
        tree, above = Tree(path, os.stat(path).st_mtime_ns), (*above, os.path.realpath(path))
        for entry in sorted(os.scandir(path), key=lambda e: e.name):
            if entry.name.startswith(".") or entry.name.casefold() in _LEFT_BY_SYSTEMS:
                continue
            if _is_dir(entry):
                if os.path.realpath(entry.path) not in above:
                    tree.folders[entry.name] = Tree.of(path / entry.name, f"{below}{entry.name}/", above)
            elif os.path.splitext(entry.name)[1].casefold() not in ENDINGS:
                tree.others.append(below + entry.name)
            elif not entry.is_file():
                raise UsageError(f"{entry.path} is no file, or a link to nothing: correct or remove it")
            else:
                tree.images.append(below + entry.name)
        return tree

    @staticmethod
    def listed(path: Path) -> Tree:
        """The same; a folder in which nothing came or went since the last time is not listed again."""
        name = (str(path), os.path.realpath(path))
        tree = _LISTED.get(name)
        if tree is None or not tree.holds():
            _LISTED.clear()
            tree = Tree.of(path)
            # What came into a folder right after it was listed may bear the same time.
            if all(tree.changed < time.time_ns() - _TICK for tree in tree.below()):
                _LISTED[name] = tree
        return tree

    def holds(self) -> bool:
        """Whether all folders still are as they were."""
        with contextlib.suppress(OSError):
            return all(os.stat(tree.path).st_mtime_ns == tree.changed for tree in self.below())
        return False

    def below(self) -> Iterator[Tree]:
        """This folder and all below it."""
        yield self
        for folder in self.folders.values():
            yield from folder.below()

    @functools.cached_property
    def files(self) -> list[str]:
        """All images in it and below, by path."""
        return sorted(p for tree in self.below() for p in tree.images) if self.folders else self.images

    def filled(self) -> dict[str, Tree]:
        """Its folders with images in or below them."""
        return {name: tree for name, tree in self.folders.items() if any(inner.images for inner in tree.below())}


_TICK = 2 * 10**9  # nanoseconds by which the clocks of file systems go on
_LISTED: dict[tuple[str, str], Tree] = {}
"""The last folder that was looked at: a command opens several splits of one."""


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        raise UsageError(
            f"{entry.path} cannot be followed ({error.strerror}): a link that leads to itself? Correct or remove it"
        ) from error


def load_folder(root: Path, name: str, asked: Asked) -> Dataset:
    """A split of root/<split>/<class>/*.png, or of root/<class>/*.png divided by `holdout`.

    Classes are the class folders of all splits by name, numbers in their order; sample ids are paths below the root.
    Files with other endings and hidden ones are left out.

    Raises:
        UsageError: no class folders, a class without images, or the split is missing.
        Failure: a file is not a readable image; in a large folder when it is met.
    """
    tree = Tree.listed(root)
    splits = splits_of(tree, asked.split)
    part = asked.part(f"the image folder {root}", splits)
    everything = list(splits.values()) or [tree]
    classes = _classes(everything, root)
    titles, wanted = list(classes), everything if part.split is None else [splits[part.split]]
    among = {id(folder) for base in wanted for folder in base.folders.values()}
    keys: list[str] = []
    counts = []
    for folders in classes.values():
        before = len(keys)
        keys += [key for folder in folders if id(folder) in among for key in folder.files]
        counts.append(len(keys) - before)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    if part.held is not None:
        kept = holdout(labels.tolist(), part.held, keys)
        keys, labels = [keys[i] for i in kept], labels[kept]
    form, dtype, notes = _look(root, everything).settle(asked.form)
    images = stack(_Paths(root, keys, Hashes(root, asked.verify)), len(keys), form, dtype)
    said = [part.note(asked.split), *notes, *_left_out(tree, everything), *_order(titles)]
    told = tuple(note for note in said if note)
    return Dataset(images, labels, tuple(titles), tuple(keys), name, part.name, form=form, notes=told)


@dataclasses.dataclass(frozen=True)
class _Paths(Files):
    root: Path
    names: Sequence[str]
    hashes: Hashes | None = None

    def __call__(self, places: Sequence[int]) -> Iterator[tuple[str, Path]]:
        return ((str(path), path) for _, path in self.named(places))

    def named(self, places: Sequence[int]) -> list[tuple[str, Path]]:
        return [(self.names[i], self.root / self.names[i]) for i in places]


def _look(root: Path, bases: Sequence[Tree]) -> Look:
    names = [name for base in bases for folder in base.folders.values() for name in folder.files]
    return Look().add(_Paths(root, names), len(names))


def splits_of(root: Tree, asked: str | None = None) -> dict[str, Tree]:
    """The folders of the root that are splits, by name; none if its folders are classes.

    A split holds class folders, and a class holds images, so that a class may be called "train". Splits have usual
    names (`splits.ROLES`), or such words in all of their names, or one of them is `asked` for.

    Raises:
        UsageError: it cannot be told.
    """
    filled = root.filled()
    usual = [name for name in filled if role_of(name) is not None]
    # Some images beside the class folders of a split do not make it a class, if it has companions.
    nested = {
        name: tree
        for name, tree in filled.items()
        if tree.filled() and (not tree.images or (name in usual and len(usual) > 1))
    }
    known = [name for name in usual if name in nested]
    others = [name for name in filled if name not in usual]
    if asked is not None and role_of(asked) is None and asked.casefold() in map(str.casefold, nested):
        return nested
    if len(known) == 1 and others:
        raise UsageError(
            f"{root.path} holds {known[0]!r}, which looks like a split, beside {', '.join(map(repr, others[:3]))}: are "
            f"its folders splits or classes? Give {root.path / known[0]} itself as the data, or move it or them away"
        )
    if known:
        return nested
    if len(nested) > 1 and nested.keys() == filled.keys() and all(map(meaning, nested)):
        return nested
    inner = {frozenset(tree.filled()) for tree in nested.values()}
    if asked is None and len(nested) > 1 and nested.keys() == filled.keys() and len(inner) == 1 and len(*inner) > 1:
        first, second = list(nested)[:2]
        raise UsageError(
            f"the folders in {root.path} all hold {', '.join(map(repr, sorted(*inner)[:3]))}: if they are splits, name "
            f"them (--train-split {first} --split {second}); if they are classes, say --train-split train --split test"
        )
    return {}


def _classes(bases: Sequence[Tree], root: Path) -> dict[str, list[Tree]]:
    """The class folders of all splits by the title of the class, in the order of the classes."""
    if all(not base.folders for base in bases):
        direct = "images, but " if any(base.images for base in bases) else ""
        raise UsageError(
            f"{root} holds {direct}no class folders: put the images into {root}/train/<class>/ and "
            f"{root}/test/<class>/, or into {root}/<class>/"
        )
    found: dict[str, list[Tree]] = defaultdict(list)
    for base in bases:
        for folder in base.folders.values():
            found[unicodedata.normalize("NFC", folder.path.name)].append(folder)  # é may be one character or two
    _refuse_cases(found, root)
    for title, folders in found.items():
        if not any(folder.files for folder in folders):
            others = _endings(p for folder in folders for tree in folder.below() for p in tree.others)
            holds = f"holds no images but {others}" if others else "holds no images"
            raise UsageError(
                f"the class folder {title!r} in {root} {holds} (images end with {', '.join(sorted(ENDINGS))}): "
                "add some or remove it"
            )
    first = next(iter(found))
    if len(found) == 1 and all(folder.folders and not folder.images for folder in found[first]):
        raise UsageError(
            f"{root} holds one class folder, {first!r}, with folders in it: give {found[first][0].path}, "
            "if these are the classes or splits"
        )
    numbers = all(title.isdecimal() and title.isascii() for title in found)
    return {title: found[title] for title in sorted(found, key=lambda t: (int(t), t) if numbers else (0, t))}


def _refuse_cases(found: Mapping[str, Sequence[Tree]], root: Path) -> None:
    spelled: dict[str, str] = {}
    for title, folders in found.items():
        other = spelled.setdefault(title.casefold(), title)
        places = {folder.path.parent for folder in folders}
        if other != title and places.isdisjoint(folder.path.parent for folder in found[other]):
            raise UsageError(f"the class folders {other!r} and {title!r} in {root} differ in case only: rename one")


def _order(titles: Sequence[str]) -> list[str]:
    if list(titles) == sorted(titles):
        return []
    return [f"the classes are in numerical order, {titles[0]} to {titles[-1]}, not in that of their letters"]


def _endings(paths: Iterator[str]) -> str:
    counted = Counter(os.path.splitext(path)[1].casefold() or "no ending" for path in paths)
    return ", ".join(f"{count} {ending}" for ending, count in counted.most_common(5))


def _left_out(root: Tree, bases: Sequence[Tree]) -> list[str]:
    """What is no hidden file, and yet not part of the data."""
    notes = []
    others = _endings(path for b in bases for f in b.folders.values() for tree in f.below() for path in tree.others)
    if others:
        notes.append(f"files of other types are left out: {others}")
    unused = [tree.path for tree in root.filled().values() if tree not in bases] if root not in bases else []
    direct = [tree for tree in (root, *bases) if tree.images]
    places = dict.fromkeys([*unused, *(tree.path for tree in direct)])
    if places:
        notes.append(f"images in no class folder are left out: those in {', '.join(map(str, places))}")
    return notes
