"""Data from arrays in memory and from `.npz` files."""

from __future__ import annotations

import dataclasses
import functools
import os
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steadygrad.arguments import arithmetic
from steadygrad.data import lazy
from steadygrad.data.dataset import Dataset, check_values, clipped, two_classes
from steadygrad.data.images import reshape
from steadygrad.data.labels import Named, classes_of, classes_of_all, repeated
from steadygrad.data.layout import channels_first
from steadygrad.data.splits import Asked, holdout, numbered
from steadygrad.errors import Failure, UsageError, reading
from steadygrad.kinds import ArrayOf, ClassNames
from steadygrad.values import take, tensor

Array = Tensor | npt.NDArray[Any]


@arithmetic
def from_arrays(
    x: ArrayOf,
    y: ArrayOf,
    classes: ClassNames | None = None,
    *,
    name: str = "arrays",
    split: str = "all",
    ids: Sequence[str] | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    channels: Literal["first", "last"] | None = None,
) -> Dataset:
    """A data set from arrays or tensors.

    Args:
        x: images (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 (0 to 255) or floats within the bounds;
            features (N, D), signals (N, C, L) or volumes (N, C, D, H, W), floats within the bounds. (N, A, B) of
            floats are signals if one side is more than four times the other, else gray images. Of large
            memory-mapped ones samples are read, and their values checked, when they are asked for.
        y: labels (N,), integers from 0.
        classes: class names or their number, 1,000,000 at most; None means the largest label plus one. Labels that do
            not occur are told then, and one apart from all others, or 255, is asked about.
        name: first part of the sample ids, shown in reports.
        split: second part of the sample ids.
        ids: stable sample names; None numbers the samples: "arrays/all/00000".
        bounds: smallest and largest value that an input can have; 0 and 255 of uint8 stand for them. Floats that are
            outside by a millionth of the range, as after normalizing and back, are clipped.
        channels: where the channels of images are, "first" or "last"; None finds it out (`layout.channels_first`).

    Raises:
        UsageError: another shape or type, NaN, values outside the bounds, labels outside the classes,
            no samples, or samples of one class only.

    >>> from_arrays(np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1]), ["cat", "dog"])
    Dataset(arrays/all: 4 samples of shape (1, 8, 8), 2 classes)
    """
    where = f"{name}/{split}"
    if isinstance(x, np.memmap) and x.nbytes > lazy.MOST_BYTES:
        return from_rows(x, y, classes, name=name, split=split, ids=ids, bounds=bounds, channels=channels)
    images = samples_of(tensor_of(x, "x", where), where, bounds, channels)
    _refuse_zero_and_one(images, where)
    return _labeled(images, y, classes, name, split, ids, bounds)


def from_rows(
    x: Any,
    y: ArrayOf,
    classes: Sequence[str] | int | None = None,
    *,
    name: str = "arrays",
    split: str = "all",
    ids: Sequence[str] | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    channels: str | None = None,
) -> Dataset:
    """The same of what gives the samples at a list of places as an array: they are read when they are asked for."""
    read = _Rows(x, ids, f"{name}/{split}", bounds, channels)
    images = lazy.LazyImages(read, torch.arange(len(x)), read([0])[0])
    return _labeled(images, y, classes, name, split, ids, bounds)


def _labeled(
    images: Tensor | lazy.LazyImages,
    y: ArrayOf,
    classes: Sequence[str] | int | None,
    name: str,
    split: str,
    ids: Sequence[str] | None,
    bounds: tuple[float, float],
) -> Dataset:
    where = f"{name}/{split}"
    labels = labels_of(y, where)
    if len(images) != len(labels):
        raise UsageError(f"{where} has {len(images)} samples in x but {len(labels)} labels in y")
    names = tuple(ids if ids is not None else numbered(f"{where}/", range(len(images))))
    known, notes = classes_of(classes, labels, where, lambda i: repr(names[i]), "classes=NAMES or their number")
    return two_classes(Dataset(images, labels, known, names, name, split, notes=notes, bounds=bounds))


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """Reads rows, such as those of a memory-mapped array, and checks their values."""

    x: Any
    ids: Sequence[str] | None
    where: str
    bounds: tuple[float, float]
    channels: str | None

    def __call__(self, rows: Sequence[int]) -> Tensor:
        values = samples_of(tensor_of(self.x[rows], "x", self.where), self.where, self.bounds, self.channels)
        names = numbered(f"{self.where}/", rows) if self.ids is None else [self.ids[i] for i in rows]
        check_values(values, names, self.where, self.bounds)
        return clipped(values, self.bounds)


def load_npz(path: Path, name: str, asked: Asked) -> Dataset:
    """A split of an `.npz` file with x and y (divided by `holdout`) or x_train, y_train, x_test, y_test.

    An optional `classes` array of strings, or a number, says the classes, and `bounds` holds the range of the values.
    """
    arrays = _read(path)
    whole = {"x", "y"} <= arrays.keys()
    part = asked.part(str(path), () if whole else _splits(path, arrays))
    ending = "" if whole else f"_{part.split}"
    stated = asked.bounds or tuple(arrays.get("bounds", np.array([0, 1])).ravel().tolist())
    x, y, kind = arrays[f"x{ending}"], arrays[f"y{ending}"], "all" if whole else part.name
    classes, notes = _classes(arrays, path)
    data = from_arrays(x, y, classes, name=name, split=kind, bounds=stated, channels=_word(arrays, "channels"))
    if part.held is not None or whole:
        keep = holdout(data.labels.tolist(), part.held)
        prefix = f"{name}/" if part.split is None else f"{name}/{part.split}/"
        data = dataclasses.replace(data.select(keep), ids=numbered(prefix, keep), split=part.name)
    note, images = part.note(asked.split), data.images
    data = dataclasses.replace(data, form=asked.form, notes=(*(() if note is None else (note,)), *notes))
    if isinstance(images, Tensor):
        return dataclasses.replace(data, images=reshape(images, asked.form))
    return dataclasses.replace(data, images=images.then(functools.partial(reshape, form=asked.form)))


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise Failure(
            f"{path} is not a readable .npz file: it is truncated, or a pickle or another format, which are never "
            "read; write it with numpy.savez(path, x=x, y=y)"
        )
    with reading(f"{path} is not a readable .npz file (truncated?)"), np.load(path, allow_pickle=False) as file:
        return {key: _member(file, key, path) for key in file.files}


def _mapped(archive: zipfile.ZipFile, key: str, path: Path) -> npt.NDArray[Any] | None:
    """A large array that is not compressed, left where it is in the file; None for any other."""
    info = archive.NameToInfo.get(f"{key}.npy")
    if info is None or info.file_size <= lazy.MOST_BYTES or info.compress_type != zipfile.ZIP_STORED:
        return None
    with archive.open(info) as content:
        while content.read(1 << 20):  # to the end, where the checksum is compared
            pass
    with path.open("rb") as raw:
        raw.seek(info.header_offset + 26)  # of the lengths of the name and of the extra field that follow
        raw.seek(sum(struct.unpack("<HH", raw.read(4))), os.SEEK_CUR)
        known = np.lib.format.read_magic(raw) == (1, 0)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(raw) if known else ((), False, np.dtype(object))
        start = raw.tell()
    return None if dtype.hasobject else np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")


def _member(file: Any, key: str, path: Path) -> npt.NDArray[Any]:
    try:
        mapped = _mapped(file.zip, key, path)
        found = mapped if mapped is not None else file[key]
    except ValueError as error:
        if "pickle" not in str(error).lower():
            raise
        raise UsageError(
            f"array {key!r} of {path} holds Python objects, a pickle that could run any code: "
            "save plain arrays of numbers"
        ) from None
    if not isinstance(found, np.ndarray):  # the bytes of what has no header of an array
        raise ValueError(f"{key} is no array")
    return found


def _splits(path: Path, arrays: Mapping[str, Any]) -> set[str]:
    splits = {key[2:] for key in arrays if key.startswith("x_") and f"y_{key[2:]}" in arrays}
    if not splits:
        raise UsageError(
            f"{path} must hold arrays x and y, or x_train, y_train, x_test and y_test; found: "
            f"{', '.join(sorted(arrays)) or 'none'}"
        )
    return splits


def _classes(arrays: Mapping[str, npt.NDArray[Any]], path: Path) -> Named:
    if "classes" in arrays:
        told = arrays["classes"]
        if told.ndim == 0 and told.dtype.kind in "iu":  # their number
            told = np.arange(int(take("classes", told, ClassNames)))
        names = tuple(os.fsdecode(c) if isinstance(c, bytes) else str(c) for c in told.ravel())
        return names, repeated(names)
    labels = {key: labels_of(y, f"{path} ({key})") for key, y in arrays.items() if key == "y" or key.startswith("y_")}
    return classes_of_all(labels, str(path), "an array of names called classes in it")


def _word(arrays: Mapping[str, npt.NDArray[Any]], key: str) -> Any:
    return str(arrays[key].ravel()[0]) if key in arrays and arrays[key].size else None


def tensor_of(value: Any, what: str, where: str) -> Tensor:
    """A tensor or array as a tensor on the CPU that shares no memory with it.

    Raises:
        UsageError: not numbers.
    """
    found = tensor(f"{what} of {where}", value)
    if found.is_meta:
        raise UsageError(f"{what} of {where} is on the meta device, without values: give a tensor that has them")
    with torch.inference_mode(False):  # the copy keeps later changes of the caller's out
        return found.detach().cpu().clone()


def samples_of(x: Tensor, where: str, bounds: tuple[float, float] = (0.0, 1.0), channels: str | None = None) -> Tensor:
    """Samples as `from_arrays` takes them in the form of a `Dataset`."""
    if x.is_floating_point():
        x = x.to(torch.float32)
    elif x.dtype != torch.uint8:
        small = x.numel() and x.dtype != torch.bool and int(x.min()) >= 0 and int(x.max()) <= 255
        way = "pixels of 0 to 255 are x.astype('uint8')" if small else "make them floats, and scale them"
        raise UsageError(f"x of {where} must be uint8 or floats within the bounds, got {x.dtype}: {way}")
    if x.ndim == 2:
        return x if x.is_floating_point() else bounds[0] + x.to(torch.float32) / (255 / (bounds[1] - bounds[0]))
    if x.ndim == 3:
        longer, shorter = max(x.shape[1:]), min(x.shape[1:])
        return x if x.is_floating_point() and longer > 4 * shorter else x.unsqueeze(1).contiguous()
    if x.ndim > 4:
        return x.contiguous()
    if x.ndim == 4:
        return channels_first(x, where, channels)
    raise UsageError(
        f"x of {where} must be images (N, H, W), (N, H, W, C) or (N, C, H, W), signals (N, C, L), volumes "
        f"(N, C, D, H, W) or features (N, D); got shape {tuple(x.shape)}"
    )


def _refuse_zero_and_one(x: Tensor, where: str) -> None:
    if x.dtype == torch.uint8 and x.numel() and int(x.max()) == 1:
        raise UsageError(
            f"x of {where} is uint8, of which 255 stands for white, and holds 0 and 1 only: give 255 * x, or floats"
        )


def labels_of(y: Any, where: str) -> Tensor:
    """Labels as int64 (N,).

    Raises:
        UsageError: other than one integer for each sample, with what to do.
    """
    found = tensor_of(y, "y", where)
    if found.ndim != 1 or found.is_floating_point() or found.dtype == torch.bool:
        way = "cast them to int"
        if found.ndim == 2:
            way = "y[:, 0] takes the only column" if found.shape[1] == 1 else "argmax(1) makes them of one-hot labels"
        got = f"{found.dtype} of shape {tuple(found.shape)}"
        raise UsageError(f"y of {where} must be integer labels of shape (N,), got {got}: {way}")
    return found.to(torch.int64)
