"""The only loop over samples: shards, seeds, devices, progress, and what is done already."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad import memory, progress
from steadygrad.calling import check_weights
from steadygrad.classifier import frozen
from steadygrad.data import Dataset
from steadygrad.data.ahead import Ahead
from steadygrad.errors import Failure, UsageError
from steadygrad.files import key
from steadygrad.measuring.code_keys import ModelKey, model_key
from steadygrad.measuring.jobs import Job, Work
from steadygrad.measuring.measure import Measure, depends_on, settings_of
from steadygrad.measuring.store import Store, place_of
from steadygrad.measuring.table import REFUSED, Array, Table
from steadygrad.quick import USUAL, Way
from steadygrad.turns import TURN

_PIECE, _PIECE_ELSEWHERE = 2**19, 2**23
"""Entries of the samples of one shard at most: 3 images of 3 x 224 x 224 on a CPU, 55 elsewhere."""


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
        batch_size: samples per call of a measure at most, fewer where the layers of a model hold much; results do not
            depend on it.
        version: stands for code of the models that cannot be read.
        may_fail: whether samples to which a model gives no answer count as wrong, rather than end the run; for who
            looks at how many there are, as `audit.answers` does.
        shard: samples per shard; by default that of each measure, and fewer of large samples.
        most: samples per shard at most, where that follows from the measure.
        work: who computes shards.
        memory: bytes for what the passes of a model hold at a time; None for `memory.budget`.
        ways: how searches run a model, by its name, if not in float32 as it is written.
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
    most: int | None = None
    work: Work = field(default_factory=Work)
    memory: float | None = None
    ways: Mapping[str, Way] = field(default_factory=dict)
    _keys: dict[str, ModelKey] = field(default_factory=dict, repr=False)
    _code: dict[str, str] = field(default_factory=dict, repr=False)
    _done: dict[str, tuple[Array, Table]] = field(default_factory=dict, repr=False)
    _room: dict[tuple[str, torch.device], int | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")
        self.ahead = Ahead(self.data)

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
        title = title or measure.title
        names, place = (model, *beside), place_of(model, title)
        elsewhere = self.work.elsewhere
        with borrowed([self.models[n] for n in names], None if elsewhere else self.device) as home:
            device = torch.device(elsewhere) if elsewhere else home
            job = Job(
                self, measure, names, title, order, dict(given or {}), dict(shared or {}), frozenset(keep), device
            )
            rows_before, before = self._done.get(f"{place} {job.key}", (order[:0], None))
            if before is not None and not given and not keep and np.isin(order, rows_before).all():
                sorter = np.argsort(rows_before)
                return before.select(sorter[np.searchsorted(rows_before, order, sorter=sorter)])
            parts: dict[int, Table] = {}
            with progress.task(f"{model}: {title}", len(order)) as advance:
                for i, found in self.work.tables(job, self.store, place):
                    parts[i] = found
                    columns: Any = found.columns
                    advance(len(found), note="" if REFUSED in found else measure.note(columns))
        self.store.keep_only(place, job.names)
        table = Table.join([parts[i] for i in range(len(parts))])
        if not given:
            self._done[f"{place} {job.key}"] = (order, table)
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
        value, way = self._keys[model].value, self.ways.get(model, USUAL)
        return value if way.precision == "float32" else key(value, way.precision)

    def room(self, model: str, device: torch.device) -> int | None:
        """How many samples of the data a model takes at once, by one forward of two of them; None where that fails."""
        if (model, device) not in self._room:
            some = list(range(min(2, len(self.data))))
            x, seeds = self.data.batch(some)[0].to(device), self.seeds("room", [self.data.ids[i] for i in some])
            with frozen(self.models[model], seeds) as subject:
                self._room[model, device] = memory.fitting(subject, x, memory.budget(device, self.memory))
        return self._room[model, device]

    def piece(self, measure: Measure, device: torch.device) -> int:
        """How many samples a shard has, such that a killed run loses little and progress is seen."""
        entries = _PIECE if device.type == "cpu" else _PIECE_ELSEWHERE
        return self.shard or max(
            1, min(measure.shard, self.most or measure.shard, entries // math.prod(self.data.shape))
        )

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
