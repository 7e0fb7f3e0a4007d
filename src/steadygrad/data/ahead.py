"""Batches of image files that a thread decodes while the one before is worked on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from steadygrad.data.dataset import Dataset

_Batch = tuple[Tensor, Tensor]


class Ahead:
    """`Dataset.batch` of data of which the caller knows what it asks for next.

    Only image files are decoded ahead: what is in memory needs none of it, and the caller's own code, which other data
    in Python may be, runs in the caller's thread.
    """

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self._pool: ThreadPoolExecutor | None = None
        self._next: tuple[list[int], Future[_Batch]] | None = None

    def batch(self, places: Sequence[int] | Tensor, following: Sequence[int] = ()) -> _Batch:
        """Inputs and labels of the samples at `places`; those at `following` are decoded until the next call."""
        if getattr(self.data.images, "hashes", None) is None:
            return self.data.batch(slice(places.start, places.stop) if isinstance(places, range) else places)
        wanted = places.tolist() if isinstance(places, Tensor) else [*places]
        decoded, self._next = self._next, None
        found = decoded[1].result() if decoded and decoded[0] == wanted else self.data.batch(wanted)
        if len(following):
            if self._pool is None:
                threads = torch.get_num_threads()  # a new thread would take all cores
                self._pool = ThreadPoolExecutor(1, "decode", torch.set_num_threads, (threads,))
            self._next = [*following], self._pool.submit(self.data.batch, [*following])
        return found


def in_turn(data: Dataset, parts: Sequence[Sequence[int]]) -> Iterator[_Batch]:
    """The batches of the samples at the places of each part.

    >>> from steadygrad.data import load
    >>> [x.shape[0] for x, y in in_turn(load("digits", "test").take(5), [range(3), range(3, 5)])]
    [3, 2]
    """
    ahead = Ahead(data)
    for part, following in zip(parts, [*parts[1:], ()]):
        yield ahead.batch(part, following)


def in_order(data: Dataset, size: int) -> Iterator[_Batch]:
    """All samples, in batches of at most so many."""
    count = len(data)
    return in_turn(data, [range(start, min(start + size, count)) for start in range(0, count, size)])
