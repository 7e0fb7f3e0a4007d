"""Images that are decoded when they are asked for, where all of them at once would take much memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steadygrad.progress import task

MOST_BYTES = 256 << 20
"""Decoded images that take more memory than this are not held, but decoded batch by batch."""
_CHUNK = 1024


@dataclass(frozen=True, eq=False, repr=False)
class LazyImages:
    """Stands in for a tensor of images (N, C, H, W), or of features (N, D): an index decodes what it names.

    `read` decodes rows of the source, as (n, *); `rows` (N,) are those that these images are; all samples have the
    shape and type of `like` (*).
    """

    read: Callable[[Sequence[int]], Tensor]
    rows: Tensor
    like: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.like.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.like.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Tensor:
        rows = self.rows[index]
        return self.read(rows.tolist()) if rows.ndim else self.read([int(rows)])[0]

    def then(self, change: Callable[[Tensor], Tensor]) -> LazyImages:
        """These images after a change that is made when they are decoded."""
        return LazyImages(_Changed(self.read, change), self.rows, change(self.like[None])[0])


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
    count = len(images)
    if count * images.like.numel() * images.like.element_size() > MOST_BYTES:
        return images
    out = torch.empty(images.shape, dtype=images.dtype)
    with task(f"read {what}", count) as advance:
        for start in range(0, count, _CHUNK):
            out[start : start + _CHUNK] = images[start : start + _CHUNK]
            advance(min(_CHUNK, count - start))
    return out
