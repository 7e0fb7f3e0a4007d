"""The only loop over samples: shards, seeds, devices, progress, and what is done already."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad import __version__, progress, provenance
from steadygrad.calling import called, check_weights, samples_may_fail
from steadygrad.data import Dataset
from steadygrad.data.ahead import Ahead
from steadygrad.derivatives import at_once
from steadygrad.errors import Failure, UsageError, out_of_memory
from steadygrad.files import key
from steadygrad.measuring.code_keys import ModelKey, model_key
from steadygrad.measuring.measure import Batch, Measure, depends_on, settings_of
from steadygrad.measuring.store import Store, place_of
from steadygrad.measuring.table import REFUSED, Array, Kept, Table
from steadygrad.turns import TURN

_LOOK = 0.2
"""Seconds between two looks at shards that other processes compute."""


class Tables(Protocol):
    """Where tables come from: a runner that measures what is missing, or a folder in which all lie."""

    def run(
        self,
        measure: Measure,
        model: str,
        *,
        title: str = "",
        beside: Sequence[str] = (),
        rows: Sequence[int] | None = None,
        given: Mapping[str, Array] | None = None,
        shared: Mapping[str, Array] | None = None,
        keep: Sequence[int] = (),
    ) -> Table:
        """The table of a measure of a model."""
        ...


@dataclass
class Runner:
    """Measures models on samples; each shard is computed once and kept in the store.

    Args:
        models: by name.
        data: the samples.
        store: what is done; in memory by default.
        seed: of the run, from which that of each sample follows.
        device: to which models are moved for as long as they are measured; None for where each one is.
        batch_size: samples per call of a measure at most, and fewer of large ones; results do not depend on it.
        version: stands for code of the models that cannot be read.
        may_fail: whether samples to which a model gives no answer count as wrong, rather than end the run; for who
            looks at how many there are, as `audit.answers` does.
        shard: samples per shard; that of each measure by default.
    """

    models: Mapping[str, nn.Module]
    data: Dataset
    store: Store = field(default_factory=Store)
    seed: int = 0
    device: str | None = None
    batch_size: int = 200
    version: str = ""
    may_fail: bool = False
    shard: int | None = None
    _keys: dict[str, ModelKey] = field(default_factory=dict, repr=False)
    _code: dict[str, str] = field(default_factory=dict, repr=False)
    _done: dict[str, tuple[Array, Table]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")
        self._ahead = Ahead(self.data)

    def run(
        self,
        measure: Measure,
        model: str,
        *,
        title: str = "",
        beside: Sequence[str] = (),
        rows: Sequence[int] | None = None,
        given: Mapping[str, Array] | None = None,
        shared: Mapping[str, Array] | None = None,
        keep: Sequence[int] = (),
    ) -> Table:
        """The table of a measure of a model, one row per sample, with columns `sample` and `label` first.

        Args:
            model: name of the model that is measured.
            title: of the table, which is its folder in the store; that of the measure by default.
            beside: names of further models that the measure gets.
            rows: places of the samples in the data, all by default.
            given: further values per sample, (N, *) each in the order of the rows.
            shared: values that are the same for all samples.
            keep: places in the data of the samples for which large columns are kept.

        Raises:
            UsageError: the measure refuses its inputs, and may not write that down.
        """
        order = np.arange(len(self.data)) if rows is None else np.asarray(rows, dtype=np.int64)
        if not len(order):
            raise UsageError(f"{title or measure.title} needs at least one sample")
        size = self.shard or measure.shard
        names_of = (model, *beside)
        job = _Job(self, measure, names_of, order, dict(given or {}), dict(shared or {}), frozenset(keep), size)
        place = place_of(model, title or measure.title)
        with borrowed([self.models[n] for n in job.names], self.device) as device:
            base = job.key(device)
            rows_before, before = self._done.get(f"{place} {base}", (order[:0], None))
            if before is not None and not given and not keep and np.isin(order, rows_before).all():
                return before.select(np.searchsorted(rows_before, order, sorter=np.argsort(rows_before)))
            shards = [slice(start, min(start + size, len(order))) for start in range(0, len(order), size)]
            names = [f"{part.start:07d}-{key(base, *job.content(part))}" for part in shards]
            parts: dict[int, Table] = {}
            with progress.task(f"{model}: {title or measure.title}", len(order)) as advance:
                while len(parts) < len(shards):
                    before_this = len(parts)
                    for i in (i for i in range(len(shards)) if i not in parts):
                        found = self.store.get(place, names[i], functools.partial(job.compute, shards[i], device))
                        if found is not None:
                            parts[i] = found
                            columns: Any = found.columns
                            note = "" if REFUSED in found else measure.note(columns)
                            advance(shards[i].stop - shards[i].start, note=note)
                    if len(parts) == before_this:
                        time.sleep(_LOOK)  # all that is left is with other processes
        self.store.keep_only(place, names)
        table = Table.join([parts[i] for i in range(len(shards))])
        if not given:
            self._done[f"{place} {base}"] = (order, table)
        return table

    def key_of(self, model: str) -> str:
        """The hash of a model's weights and code, computed once."""
        if model not in self._keys:
            self._keys[model] = found = model_key(self.models[model], self.version)
            if found.unreadable and self.store.together:
                hidden = ", ".join(found.unreadable)
                raise UsageError(
                    f"the source of {hidden} cannot be read, so that processes cannot tell whether they measure "
                    f"the same {model}: give a version that changes with the code (version=, --version)"
                )
            if found.unreadable and self.store.folder is not None:
                logging.getLogger("steadygrad").warning(
                    "the source of %s cannot be read, so that results of %s are not used by a later process; give a "
                    "version that changes with the code to have them kept",
                    ", ".join(found.unreadable),
                    model,
                )
        return self._keys[model].value

    def code_of(self, measure: Measure) -> str:
        """The hash of a measure's sources, computed once."""
        name = key(settings_of(measure))
        if name not in self._code:
            self._code[name] = depends_on(measure)
        return self._code[name]

    def seeds(self, draws_as: Any, ids: Sequence[str]) -> Tensor:
        """The seeds (n,) of samples: from the run's seed, what draws, and the sample's own id."""
        return torch.tensor([int(key(self.seed, draws_as, name), 16) % 2**62 for name in ids])


@dataclass(frozen=True)
class _Job:
    """One table under way."""

    runner: Runner
    measure: Measure
    names: tuple[str, ...]
    rows: Array
    given: Mapping[str, Array]
    shared: Mapping[str, Array]
    keep: frozenset[int]
    shard: int

    def key(self, device: torch.device) -> str:
        runner = self.runner
        models = [runner.key_of(name) for name in self.names]
        shared = {name: key(str(v.dtype), v.shape, v.tobytes().hex()) for name, v in self.shared.items()}
        return key(settings_of(self.measure), runner.code_of(self.measure), models, runner.seed, device.type, shared)

    def content(self, part: slice) -> list[Any]:
        """What a shard depends on besides the job: its samples and what is given with them."""
        places = self.rows[part].tolist()
        keys = list(self.runner.data.content_keys(places))
        given = {name: key(str(v.dtype), v[part].tobytes().hex()) for name, v in self.given.items()}
        return [keys, given, [i in self.keep for i in places] if self.keep else False]

    def compute(self, part: slice, device: torch.device) -> Table:
        started = time.monotonic()
        table = self._measured(part, device, at_once(self.runner.batch_size, self.runner.data.shape, device))
        about = {
            "measure": settings_of(self.measure),
            "models": list(self.names),
            "seed": self.runner.seed,
            "seconds": round(time.monotonic() - started, 3),
            "created": provenance.now(),
            "version": __version__,
            "machine": provenance.machine(str(device)),
        }
        return Table(table.columns, about)

    def _measured(self, part: slice, device: torch.device, size: int) -> Table:
        starts = range(part.start, part.stop, size)
        try:
            return Table.join([self._batch(slice(s, min(s + size, part.stop)), device, size) for s in starts])
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
        return self._measured(part, device, (min(size, part.stop - part.start) + 1) // 2)

    def _samples(self, part: slice) -> tuple[Array, Array]:
        places, data = self.rows[part].tolist(), self.runner.data
        return np.array([data.ids[i] for i in places]), data.labels[places].numpy()

    def _following(self, start: int, size: int) -> Array:
        """The places of the batch that begins at a row; none where another process may have it."""
        if start % self.shard == 0 and self.runner.store.together:
            return self.rows[:0]
        return self.rows[start : min(start + size, (start // self.shard + 1) * self.shard)]

    def _batch(self, part: slice, device: torch.device, size: int) -> Table:
        runner, places = self.runner, self.rows[part].tolist()
        x, y = runner._ahead.batch(places, self._following(part.stop, size).tolist())
        ids, labels = self._samples(part)
        given = {name: values[part] for name, values in self.given.items()}
        seeds = runner.seeds(self.measure.draws_as, ids.tolist())
        batch = Batch(x.to(device), y.to(device), ids.tolist(), seeds, given, self.shared)
        with samples_may_fail(runner.may_fail):
            found = self.measure([called(runner.models[name]) for name in self.names], batch)
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


@dataclass(frozen=True)
class SavedTables:
    """The tables of a finished run on so many samples, read from its folder: nothing is measured."""

    folder: Path
    samples: int

    def run(
        self, measure: Measure, model: str, *, title: str = "", rows: Sequence[int] | None = None, **ignored: Any
    ) -> Table:
        """The table that an earlier run left, or the rows of it that are asked for."""
        place = place_of(model, title or measure.title)
        table = Store(self.folder).table(place)
        count = self.samples if rows is None else len(rows)
        if table is None or len(table) < count:
            found = "there is no table" if table is None else f"{len(table)} of {count} samples are in the table"
            raise Failure(f"the run is not complete: {found} {self.folder / place}; run the same command again")
        # A check that asks for some samples of what was measured on all finds the table of all.
        return table if len(table) == count else table.select(np.asarray(rows))


@contextlib.contextmanager
def borrowed(models: Sequence[nn.Module], device: str | None) -> Iterator[torch.device]:
    """The models on one device within the block, then each tensor where it was; None is that of the first model."""
    for model in models:
        check_weights(model)
    tensors = [t for m in models for t in (*m.parameters(), *m.buffers())]
    with TURN:  # another thread may have them elsewhere
        first = next((t.device for t in (*models[0].parameters(), *models[0].buffers())), torch.device("cpu"))
        where = torch.device(device) if device is not None else first
        moved = [
            (t, t.device) for t in tensors if t.device.type != where.type or (where.index or 0) != (t.device.index or 0)
        ]
        try:
            for tensor, _ in moved:
                tensor.data = tensor.data.to(where)
            yield where
        finally:
            for tensor, home in moved:
                tensor.data = tensor.data.to(home)
