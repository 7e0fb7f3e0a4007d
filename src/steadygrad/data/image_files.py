"""Image files that are decoded when they are asked for, and told from others by their bytes, without being decoded."""

from __future__ import annotations

import abc
import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from steadygrad.data.form import Form
from steadygrad.data.hashes import LENGTH, Hashes, hash_of
from steadygrad.data.images import decode
from steadygrad.data.lazy import LazyImages
from steadygrad.errors import Failure, UsageError, reading

_DECODING = 1
"""Stands for how files become pixels; to be raised with any change after which a file gives other ones."""
_T = TypeVar("_T")
_U = TypeVar("_U")


class Files(abc.ABC):
    """Image files by place."""

    hashes: Hashes | None = None
    """Where the hashes of their contents are kept, if anywhere."""

    @abc.abstractmethod
    def __call__(self, places: Sequence[int]) -> Iterable[tuple[str, bytes | Path]]:
        """What errors call each, and its content or path."""

    def named(self, places: Sequence[int]) -> list[tuple[str, Path]]:
        """The name by which the hash of each is kept, and the file that it is in."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class Decoder:
    """Decodes `count` image files by place into one tensor (n, C, H, W) of the shape and type of `like`.

    `first` is what errors call the file whose shape that is.
    """

    files: Files
    count: int
    form: Form
    first: str
    like: Tensor

    def __getstate__(self) -> dict[str, Any]:
        # Other processes look for themselves.
        return {name: value for name, value in vars(self).items() if name != "seen"}

    @functools.cached_property
    def seen(self) -> np.ndarray[Any, Any]:
        """The hashes (N, 20) of the files that were asked for here; zeros for others."""
        return np.zeros((self.count, LENGTH), np.uint8)

    @functools.cached_property
    def way(self) -> bytes:
        """A hash of how a file becomes pixels."""
        return hash_of(json.dumps([_DECODING, self.form.plain()], sort_keys=True).encode())

    def __call__(self, rows: Sequence[int]) -> Tensor:
        out = torch.empty(len(rows), *self.like.shape, dtype=self.like.dtype)
        # In the order of the source, which may have to open a part of a file for several of them.
        order = sorted(range(len(rows)), key=rows.__getitem__)
        sources = zip((rows[i] for i in order), self.files([rows[i] for i in order]))
        for place, image in zip(order, _each(self._image, sources, len(rows))):
            out[place] = image
        return out

    def hashes(self, rows: Sequence[int]) -> list[bytes]:
        """What rows are made from: a hash of each file's bytes beside one of its way to pixels; nothing is decoded."""
        asked = np.asarray(rows, dtype=np.int64)
        new = np.unique(asked[~self.seen[asked].any(1)]).tolist()
        if new:
            kept = self.files.hashes

            def read(places: Sequence[int]) -> Iterable[bytes]:
                return _each(_hashed, self.files([new[i] for i in places]), len(places))

            found = read(range(len(new))) if kept is None else kept.of(self.files.named(new), read)
            self.seen[new] = np.frombuffer(b"".join(found), np.uint8).reshape(-1, LENGTH)
        return [self.way + content.tobytes() for content in self.seen[asked]]

    def _image(self, item: tuple[int, tuple[str, bytes | Path]]) -> Tensor:
        row, (where, source) = item
        content, known = _content(where, source), self.seen[row]
        # A hash that was kept by size and time is believed no further than to here.
        if known.any() and hash_of(content) != known.tobytes():
            raise Failure(
                f"{where} is not what it was when its hash was taken, though size and time may be the same: was it "
                "changed, or damaged? Run again with --verify (load(..., verify=True)), which reads all files anew"
            )
        image = _decoded(content, self.form, where, self.like.dtype)
        _check_alike(image, self.like, where, self.first)
        return image


def stack(files: Files, count: int, form: Form, dtype: torch.dtype | None = None) -> LazyImages | Tensor:
    """`count` image files by place as images (N, C, H, W), which are decoded when they are asked for.

    Args:
        dtype: uint8, or float32 in [0, 1], to which all are scaled; None for what the first one is.

    Raises:
        Failure: the first file is not a readable image; what is wrong with another is raised when it is met.
    """
    if not count:
        return torch.empty(0, 1, 1, 1, dtype=torch.uint8)
    ((first, source),) = files([0])
    like = _decoded(_content(first, source), form, first, dtype)
    decoder = Decoder(files, count, form, first, like)
    return LazyImages(decoder, torch.arange(count), like, decoder.hashes)


def _each(function: Callable[[_T], _U], items: Iterable[_T], count: int) -> Iterable[_U]:
    """A function of each, by as many threads as PyTorch takes; reading and decoding leave Python's lock."""
    threads = min(torch.get_num_threads(), count)
    if threads < 2:
        return map(function, items)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def _content(where: str, source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source
    with reading(f"{where} cannot be read", "; replace or remove it"):
        return source.read_bytes()


def _hashed(file: tuple[str, bytes | Path]) -> bytes:
    return hash_of(_content(*file))


def _decoded(content: bytes, form: Form, where: str, dtype: torch.dtype | None) -> Tensor:
    # A copy, since PIL's memory is read-only.
    image = torch.from_numpy(decode(content, form, where).copy()).permute(2, 0, 1)  # (C, H, W)
    if dtype is None or image.dtype == dtype:
        return image
    return image.to(torch.float32) / 255 if dtype.is_floating_point else (image * 255).round_().to(torch.uint8)


def _check_alike(image: Tensor, other: Tensor, where: str, first: str) -> None:
    (channels, height, width), (wanted, *size) = image.shape, other.shape
    if channels != wanted:
        raise UsageError(f"{where} has {channels} channels, {first} has {wanted}: choose color 'gray' or 'rgb'")
    if [height, width] != size:
        raise UsageError(
            f"{where} is {height} x {width} pixels, {first} is {size[0]} x {size[1]}: choose one size, such as "
            f"{size[0]}x{size[1]}"
        )
