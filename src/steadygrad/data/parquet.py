"""Data from Parquet files in the layout of the Hub, read without copying them into a cache."""

from __future__ import annotations

import bisect
import contextlib
import copy
import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from steadygrad.data.dataset import Dataset
from steadygrad.data.hashes import Hashes
from steadygrad.data.image_files import Files, stack
from steadygrad.data.labels import Named, classes_of_all, repeated
from steadygrad.data.settle import Look
from steadygrad.data.spill import Spill
from steadygrad.data.splits import Asked, holdout, numbered
from steadygrad.errors import Failure, UsageError, reading
from steadygrad.files import in_text

_SHARD = re.compile(r"^(?P<split>.+?)[-_](?P<shard>\d+)(-of-(?P<total>\d+))?(-[0-9a-f]+)?$")
_SPLITS = frozenset({"train", "test", "validation", "valid", "val", "extra", "unsupervised"})
LOOKED_AT = 250
"""So many rows of each split say what its images look like."""
_MOST_BYTES = 64 << 20  # of encoded images that are kept
_IMAGE, _LABEL = ("image", "img"), ("label", "labels", "fine_label")


def image_and_label(names: Sequence[str], where: str) -> tuple[str, str]:
    """Which of the columns of a table hold the images and the labels.

    Raises:
        UsageError: a column is missing.

    >>> image_and_label(["img", "fine_label", "coarse_label"], "cifar100")
    ('img', 'fine_label')
    """
    found = [next((name for name in choices if name in names), "") for choices in (_IMAGE, _LABEL)]
    if not all(found):
        wanted = (f"image column ({' or '.join(_IMAGE)})", f"label column ({' or '.join(_LABEL)})")
        lacking = " and ".join(what for what, name in zip(wanted, found) if not name)
        raise UsageError(f"{where} has no {lacking}; found: {', '.join(names) or 'none'}")
    return found[0], found[1]


def load_parquet(path: Path, name: str, asked: Asked) -> Dataset:
    """A split of a Parquet file or folder with an image column and a column of integer labels.

    Files belong to a split by name (`train-00000-of-00005.parquet`, `test.parquet`) or by folder
    (`train/0000.parquet`). One set of files that says no split is divided by `holdout`. Class names
    come from the Hub's schema metadata, else they are numbers.

    Raises:
        UsageError: missing split, columns, class or image.
        Failure: a file or an image is truncated (of a large data set when it is met), or a shard is missing.
    """
    groups = _groups(parquet_files(path))
    divided = len(groups) > 1 or not groups.keys().isdisjoint(_SPLITS)
    part = asked.part(str(path), groups if divided else ())
    files = groups[part.split] if part.split is not None else next(iter(groups.values()))
    if path.is_dir():
        _check_shards(files)
    labels = [label for file in files for label in _labels(file)]
    known = _class_names(files[0])
    names, gaps = (known, repeated(known)) if known is not None else _counted(groups, path)
    keep = holdout(labels, part.held)
    rows, look = _Files(files), Look()
    for paths in groups.values():
        with contextlib.suppress(Failure):  # another split may be damaged
            every = rows if paths is files else _Files(paths)
            look.add(every, min(every.count, LOOKED_AT))
    form, dtype, notes = look.settle(asked.form)
    folder = path if path.is_dir() else path.parent
    images = stack(rows.of(keep, Hashes(folder, asked.verify)), len(keep), form, dtype)
    ids = numbered(f"{name}/{part.split}/" if divided else f"{name}/", keep)
    kept = torch.tensor([labels[i] for i in keep], dtype=torch.int64)
    said = tuple(note for note in (part.note(asked.split), *notes, *gaps) if note)
    return Dataset(images, kept, names, ids, name, part.name, form=form, notes=said)


def _counted(groups: Mapping[str, Sequence[Path]], path: Path) -> Named:
    labels = {file: torch.tensor(_labels(file)).long() for files in groups.values() for file in files}
    return classes_of_all(labels, str(path), "names of classes in its huggingface metadata")


def parquet_files(path: Path) -> list[Path]:
    """The Parquet file, or those in the folder and its subfolders."""
    if path.is_file():
        return [path]
    return sorted(file for file in (*path.glob("*.parquet"), *path.glob("*/*.parquet")) if file.is_file())


def _groups(files: Sequence[Path]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        match = _SHARD.match(file.stem)
        split = file.parent.name if file.stem.isdigit() else match["split"] if match else file.stem
        groups[split].append(file)
    for split, members in groups.items():
        folders = sorted({str(file.parent) for file in members})
        if len(folders) > 1:
            raise UsageError(f"the split {split!r} is in several folders, give one of them: {', '.join(folders)}")
    return groups


def _check_shards(files: Sequence[Path]) -> None:
    """Refuse a data set with a missing shard, which looks like a smaller data set."""
    matches = [m for m in (_SHARD.match(file.stem) for file in files) if m is not None and m["total"]]
    total = int(matches[0]["total"]) if matches else 0
    if missing := sorted(set(range(total)) - {int(m["shard"]) for m in matches}):
        raise Failure(f"{files[0].parent} lacks shard {missing[0]} of {total} beside {files[0].name}: copy it there")


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    what = f"{path} is not a readable Parquet file (truncated?)"
    with reading(what, "; copy it again"), in_text(path) as place, ParquetFile(place) as file:
        yield file


def _class_names(path: Path) -> tuple[str, ...] | None:
    with _open(path) as file:
        schema = file.schema_arrow
    label = image_and_label(schema.names, str(path))[1]
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    told = isinstance(names, list) and names and all(isinstance(name, str | int) for name in names)
    return tuple(map(str, names)) if told else None


def _labels(path: Path) -> list[int]:
    from pyarrow import types

    with _open(path) as file:
        label = image_and_label(file.schema_arrow.names, str(path))[1]
        column = file.read(columns=[label]).column(label)
    if not types.is_integer(column.type) or column.null_count:
        found = f"{column.type} with {column.null_count} empty rows" if column.null_count else str(column.type)
        raise UsageError(f"the column {label!r} of {path} must hold integer labels, got {found}")
    values = [int(v) for v in column.to_pylist()]
    if max(values, default=0) > 2**63 - 1:
        raise UsageError(f"the column {label!r} of {path} holds {max(values)}, which is larger than a 64-bit integer")
    return values


class _Files(Files):
    """The image files in the kept rows, counted over all Parquet files, which are read one group of rows at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.keep: Sequence[int] | None = None
        total = largest = 0
        self.groups: list[tuple[int, int, Path, int]] = []  # first row of all, first row of the file, path, group
        for path in paths:
            with _open(path) as file:
                about = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
            before = total
            for group, part in enumerate(about):
                self.groups.append((total, total - before, path, group))
                total, largest = total + part.num_rows, max(largest, part.total_byte_size)
        self.count, self.held = total, max(1, _MOST_BYTES // max(largest, 1))

    def of(self, keep: Sequence[int], hashes: Hashes) -> _Files:
        """These rows."""
        part = copy.copy(self)
        part.keep, part.hashes = keep, hashes
        return part

    @functools.cached_property
    def column(self) -> Any:
        # Neighbors need the same group; a few more are kept for data that are read in another order.
        return functools.lru_cache(self.held)(self._column)

    @functools.cached_property
    def spill(self) -> Spill:
        return Spill()

    def __getstate__(self) -> dict[str, Any]:
        # Other processes read for themselves.
        return {name: value for name, value in vars(self).items() if name not in ("column", "spill")}

    def __call__(self, places: Sequence[int]) -> Iterator[tuple[str, bytes | Path]]:
        for path, group, first, row in map(self._place, places):
            content = self.spill.read((path, group), row) or _bytes(self.column(path, group)[row])
            if not content:
                raise Failure(f"the image in row {first + row} of {path} holds no bytes of an image file")
            yield f"the image in row {first + row} of {path}", content

    def _column(self, path: Path, group: int) -> Any:
        column = _column(path, group)
        self.spill.offer((path, group), lambda: [_bytes(value) for value in column])
        return column

    def named(self, places: Sequence[int]) -> list[tuple[str, Path]]:
        return [
            (f"{path.parent.name}/{path.name}#{first + row}", path) for path, _, first, row in map(self._place, places)
        ]

    def _place(self, place: int) -> tuple[Path, int, int, int]:
        """The file of a row, the group in it, the first row of the group in the file, and the row in the group."""
        row = place if self.keep is None else self.keep[place]
        start, first, path, group = self.groups[bisect.bisect(self.groups, row, key=lambda g: g[0]) - 1]
        return path, group, first, row - start


def _bytes(value: Any) -> bytes:
    """The image file in a row; nothing where there is none."""
    found = value.as_py()
    found = found.get("bytes") if isinstance(found, dict) else found
    return found if isinstance(found, bytes) else b""


def _column(path: Path, group: int) -> Any:
    with _open(path) as file:
        image = image_and_label(file.schema_arrow.names, str(path))[0]
        return file.read_row_group(group, columns=[image]).column(0)
