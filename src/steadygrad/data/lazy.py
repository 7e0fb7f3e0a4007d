"""Images that are decoded when they are asked for, where all of them at once would take much memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steadygrad.progress import task

MOST_BYTES = 256 << 20
"""Images that take more memory are decoded batch by batch; the first ones are held, as many as fit into it."""
_CHUNK = 1024


@dataclass(frozen=True, eq=False, repr=False)
class LazyImages:
    """Stands in for a tensor of images (N, C, H, W), or of features (N, D): an index decodes what it names.

    `read` decodes rows of the source, as (n, *); `rows` (N,) are those that these images are; all samples have the
    shape and type of `like` (*). `hashes` says what rows of the source are made from without decoding them, where that
    is possible.
    """

    read: Callable[[Sequence[int]], Tensor]
    rows: Tensor
    like: Tensor
    hashes: Callable[[Sequence[int]], list[bytes]] | None = None
    _held: dict[int, Tensor] = field(default_factory=dict, init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.like.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.like.dtype

    @property
    def fits(self) -> bool:
        """Whether all of them decoded take no more memory than `MOST_BYTES`."""
        return len(self) * self.like.numel() * self.like.element_size() <= MOST_BYTES

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_held": {}}

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Tensor:
        rows = self.rows[index]
        return self._values(rows.tolist()) if rows.ndim else self._values([int(rows)])[0]

    def _values(self, rows: list[int]) -> Tensor:
        """Those that are held, and others, of which the first ones are held as long as there is room."""
        # Not the latest ones: who goes through all of them again and again would never meet one.
        held = self._held
        missing = [row for row in rows if row not in held]
        read = self.read(missing) if missing or not rows else self.like[None][:0]
        room = MOST_BYTES // (self.like.numel() * self.like.element_size()) - len(held)
        for row, value in zip(missing[: max(room, 0)], read):
            held[row] = value.clone()
        if len(missing) == len(rows):
            return read
        new = iter(read)
        found = set(missing)
        return torch.stack([next(new) if row in found else held[row] for row in rows])

    def then(self, change: Callable[[Tensor], Tensor]) -> LazyImages:
        """These images after a change that is made when they are decoded."""
        return LazyImages(_Changed(self.read, change), self.rows, change(self.like[None])[0])


def contents(images: Tensor | LazyImages, places: Sequence[int] | slice, decoded: bool = False) -> Iterator[Any]:
    """What tells images from others, as bytes: their hashes, where these need no decoding, or their pixels.

    Args:
        decoded: whether their pixels are wanted in any case.
    """
    if isinstance(images, LazyImages) and images.hashes is not None and not decoded:
        yield from images.hashes(images.rows[places].tolist())
    else:
        pixels = images[places].contiguous().cpu().numpy()
        yield from (image.data for image in pixels)


def digests(several: Sequence[Tensor | LazyImages]) -> list[list[bytes]]:
    """A hash of each image of several sets, the same for equal ones; of the files alone, if that is what all hold."""
    decoded = any(getattr(images, "hashes", None) is None for images in several)
    return [
        [
            hashlib.blake2b(content, digest_size=16).digest()
            for start in range(0, len(images), _CHUNK)
            for content in contents(images, slice(start, start + _CHUNK), decoded)
        ]
        for images in several
    ]


@dataclass(frozen=True)
class _Changed:
    read: Callable[[Sequence[int]], Tensor]
    change: Callable[[Tensor], Tensor]

    def __call__(self, rows: Sequence[int]) -> Tensor:
        return self.change(self.read(rows))


def loaded(images: Tensor | LazyImages, what: str) -> Tensor | LazyImages:
    """The images in memory, unless they would take more than `MOST_BYTES` there."""
    if isinstance(images, Tensor):
        return images
    if not images.fits:
        return images
    count = len(images)
    out = torch.empty(images.shape, dtype=images.dtype)
    with task(f"read {what}", count) as advance:
        for start in range(0, count, _CHUNK):
            out[start : start + _CHUNK] = images.read(images.rows[start : start + _CHUNK].tolist())
            advance(min(_CHUNK, count - start))
    return out
