"""A table under way, cut into shards, and who computes them: what an engine may do in another place."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from steadygrad import __version__, memory, provenance
from steadygrad.arguments import of_the_callers
from steadygrad.calling import called, samples_may_fail
from steadygrad.errors import Failure, UsageError, out_of_memory
from steadygrad.files import key
from steadygrad.measuring.measure import Batch, Measure, settings_of
from steadygrad.measuring.store import Store
from steadygrad.measuring.table import REFUSED, Array, Kept, Table
from steadygrad.quick import taking

if TYPE_CHECKING:
    from steadygrad.measuring.runner import Runner

_LOOK = 0.2
"""Seconds between two looks at shards that other processes compute."""


@dataclass(frozen=True)
class Job:
    """One table under way.

    Attributes:
        models: the measured one, and those beside it, by name.
        title: of the table.
        device: where it is computed.
    """

    runner: Runner
    measure: Measure
    models: tuple[str, ...]
    title: str
    rows: Array
    given: Mapping[str, Array]
    shared: Mapping[str, Array]
    keep: frozenset[int]
    device: torch.device

    @cached_property
    def key(self) -> str:
        """What the table depends on besides its samples."""
        runner = self.runner
        models = [runner.key_of(name) for name in self.models]
        shared = {name: key(str(v.dtype), v.shape, v.tobytes().hex()) for name, v in self.shared.items()}
        made_by = (settings_of(self.measure), runner.code_of(self.measure))
        return key(*made_by, models, runner.seed, self.device.type, shared)

    @cached_property
    def parts(self) -> list[slice]:
        """The places in the rows of each shard."""
        size, count = self.runner.piece(self.measure, self.device), len(self.rows)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    @cached_property
    def names(self) -> list[str]:
        """Of the shards in the store, which sort as the shards do."""
        return [f"{part.start:07d}-{key(self.key, *self._content(part))}" for part in self.parts]

    def says(self, i: int) -> str:
        """A shard in words: model, table and samples."""
        ids, _ = self._samples(self.parts[i])
        return f"{self.models[0]}: {self.title}, samples {str(ids[0])!r} to {str(ids[-1])!r}"

    def compute(self, i: int) -> Table:
        """A shard, whose models must be on the device."""
        part, device = self.parts[i], self.device
        started = time.monotonic()
        rooms = [self.runner.room(name, device) for name in self.models]
        with memory.room_for(min((room for room in rooms if room is not None), default=None)):
            table = self._measured(part, memory.at_once(self.runner.batch_size, self.runner.data.shape, device))
        about = {
            "measure": settings_of(self.measure),
            "models": list(self.models),
            "seed": self.runner.seed,
            "seconds": round(time.monotonic() - started, 3),
            "created": provenance.now(),
            "version": __version__,
            "machine": provenance.machine(str(device)),
        }
        return Table(table.columns, about)

    def _content(self, part: slice) -> list[Any]:
        """What a shard depends on besides the job: its samples and what is given with them."""
        places = self.rows[part].tolist()
        keys = list(self.runner.data.content_keys(places))
        given = {name: key(str(v.dtype), v[part].tobytes().hex()) for name, v in self.given.items()}
        return [keys, given, [i in self.keep for i in places] if self.keep else False]

    def _measured(self, part: slice, size: int) -> Table:
        starts = range(part.start, part.stop, size)
        try:
            return Table.join([self._batch(slice(s, min(s + size, part.stop)), size) for s in starts])
        except (UsageError, Failure) as error:
            if not self.measure.may_refuse:
                raise
            ids, labels = self._samples(part)
            return Table({"sample": ids, "label": labels, REFUSED: np.array([str(error)] * len(ids))})
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not out_of_memory(error):
                raise
        # Outside of the handler, which would keep the tensors of the failed call alive.
        logging.getLogger("steadygrad").warning("out of memory with %d samples at once: again with half of them", size)
        return self._measured(part, (min(size, part.stop - part.start) + 1) // 2)

    def _samples(self, part: slice) -> tuple[Array, Array]:
        places, data = self.rows[part].tolist(), self.runner.data
        return np.array([data.ids[i] for i in places]), data.labels[places].numpy()

    def _following(self, start: int, size: int) -> Array:
        """The places of the batch that begins at a row; none where another process may have it."""
        shard = self.parts[0].stop
        if start % shard == 0 and self.runner.store.together:
            return self.rows[:0]
        return self.rows[start : min(start + size, (start // shard + 1) * shard)]

    def _batch(self, part: slice, size: int) -> Table:
        runner, places, device = self.runner, self.rows[part].tolist(), self.device
        x, y = runner.ahead.batch(places, self._following(part.stop, size).tolist(), device)
        ids, labels = self._samples(part)
        given = {name: values[part] for name, values in self.given.items()}
        seeds = runner.seeds(self.measure.draws_as, ids.tolist())
        batch = Batch(x, y, ids.tolist(), seeds, given, self.shared)
        ways = [(runner.models[name], way) for name, way in runner.ways.items() if name in self.models]
        with samples_may_fail(runner.may_fail), taking(ways):
            found = self.measure([called(runner.models[name]) for name in self.models], batch)
        columns: dict[str, Array | Kept] = {"sample": ids, "label": labels}
        kept = np.array([i in self.keep for i in places])
        for name, values in found.items():
            column = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
            if len(column) != len(places):
                raise Failure(f"{self.measure.title} returned {len(column)} values of {name} for {len(places)} samples")
            if name in self.measure.kept:
                columns[name] = Kept(len(places), np.flatnonzero(kept), column[kept])
            else:
                columns[name] = column
        return Table(columns)


class Work:
    """Computes shards in this process, one after the other; those that another process computes are left to it."""

    elsewhere: str | None = None
    """The device on which copies of the models compute shards in another place; None for where the runner says."""

    def tables(self, job: Job, store: Store, place: str) -> Iterator[tuple[int, Table]]:
        """Each shard of a job with its place in it, as soon as it is there; what is new is kept in the store.

        Raises:
            UsageError, Failure: a shard cannot be computed; the message names model, table and samples.
        """
        left = list(range(len(job.parts)))
        while left:
            elsewhere = []
            for i in left:
                with naming(job, i):
                    found = store.get(place, job.names[i], functools.partial(job.compute, i))
                if found is None:
                    elsewhere.append(i)
                else:
                    yield i, found
            if len(elsewhere) == len(left):
                time.sleep(_LOOK)
            left = elsewhere
            store.forget(place)


@contextlib.contextmanager
def naming(job: Job, i: int) -> Iterator[None]:
    """Within the block, which computes a shard, errors name it."""
    try:
        yield
    except Exception as error:
        told: Exception = error
        if not isinstance(error, UsageError | Failure):
            told = of_the_callers(error, {}) or Failure(f"{type(error).__name__}: {error}")
        kind = UsageError if isinstance(told, UsageError) else Failure
        raise kind(f"{job.says(i)}: {told}") from error
