"""Batches that a thread reads while the one before is worked on: image files, and what goes to a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from steadygrad.data.dataset import Dataset

_Batch = tuple[Tensor, Tensor]
_CPU = torch.device("cpu")


class Ahead:
    """`Dataset.batch` of data of which the caller knows what it asks for next.

    Image files are decoded ahead. What is in memory is read ahead for a CUDA device, to which it is copied from pages
    that the system leaves where they are, so that nothing waits for the copy. The caller's own code, which other data
    in Python may be, runs in the caller's thread.
    """

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self._pool: ThreadPoolExecutor | None = None
        self._next: tuple[list[int], Future[_Batch]] | None = None

    def batch(
        self, places: Sequence[int] | Tensor, following: Sequence[int] = (), device: torch.device = _CPU
    ) -> _Batch:
        """Inputs and labels of the samples at `places` on a device; those at `following` are read until the next."""
        images, pinned = self.data.images, device.type == "cuda"
        if not (pinned and isinstance(images, Tensor)) and getattr(images, "hashes", None) is None:
            found = self.data.batch(slice(places.start, places.stop) if isinstance(places, range) else places)
            return _there(_pinned(found) if pinned else found, device)
        wanted = places.tolist() if isinstance(places, Tensor) else [*places]
        known, self._next = self._next, None
        found = known[1].result() if known and known[0] == wanted else self._read(wanted, pinned)
        if len(following):
            if self._pool is None:
                threads = torch.get_num_threads()  # a new thread would take all cores
                self._pool = ThreadPoolExecutor(1, "decode", torch.set_num_threads, (threads,))
            self._next = [*following], self._pool.submit(self._read, [*following], pinned)
        return _there(found, device)

    def _read(self, places: list[int], pinned: bool) -> _Batch:
        found = self.data.batch(places)
        return _pinned(found) if pinned else found


def _pinned(batch: _Batch) -> _Batch:
    x, y = (part.pin_memory() if part.device.type == "cpu" else part for part in batch)
    return x, y


def _there(batch: _Batch, device: torch.device) -> _Batch:
    x, y = (part.to(device, non_blocking=device.type == "cuda") for part in batch)
    return x, y


def in_turn(data: Dataset, parts: Sequence[Sequence[int]], device: torch.device = _CPU) -> Iterator[_Batch]:
    """The batches of the samples at the places of each part, on a device.

    >>> from steadygrad.data import load
    >>> [x.shape[0] for x, y in in_turn(load("digits", "test").take(5), [range(3), range(3, 5)])]
    [3, 2]
    """
    ahead = Ahead(data)
    for part, following in zip(parts, [*parts[1:], ()]):
        yield ahead.batch(part, following, device)


def in_order(data: Dataset, size: int) -> Iterator[_Batch]:
    """All samples, in batches of at most so many."""
    count = len(data)
    return in_turn(data, [range(start, min(start + size, count)) for start in range(0, count, size)])
