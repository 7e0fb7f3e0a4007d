"""What an audit will cost, told before it is spent: all that it measures is tried on a few samples."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad import progress
from steadygrad.arguments import public
from steadygrad.attacks.expectation import network_of
from steadygrad.audit.prepared import Prepared, prepared
from steadygrad.calling import logits_of
from steadygrad.classifier import frozen
from steadygrad.data.python_data import Samples
from steadygrad.derivatives import gradient
from steadygrad.errors import Failure, UsageError
from steadygrad.measuring.jobs import Work
from steadygrad.measuring.measure import Measure
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.runner import Runner, Tables, borrowed
from steadygrad.measuring.store import Store
from steadygrad.measuring.table import Array, Kept, Table
from steadygrad.memory import at_once, need, room_for
from steadygrad.threat import Threat

_QUICK = 0.002
"""Seconds of a pass of one sample below which more samples are tried: what is done besides counts there."""
_LONGEST = 60.0
"""Seconds after which the trial of a table that may be refused is stopped: explanations of large images take hours."""
_TRIED, _LOOKED_AT = 16, 64
"""Samples that are tried on a quick model, and among which they, or the one of a slow model, are chosen."""


@dataclass(frozen=True)
class TableCost:
    """What one table of an audit costs.

    Attributes:
        model, table: whose table it is, and its title.
        samples: in the table.
        shards: pieces of work, each of which is kept by itself.
        forwards, backwards: passes of all its samples through the model.
        seconds: on this machine in one process.
        at_least: whether passes and seconds are more than these by an unknown amount, as the trial was stopped.
    """

    model: str
    table: str
    samples: int
    shards: int
    forwards: float
    backwards: float
    seconds: float
    at_least: bool = False


@dataclass(frozen=True)
class AuditCost:
    """What an audit costs, table by table.

    Attributes:
        samples: of the audit.
        tried: how many were measured to tell.
        at_once: samples in a pass at most, by model.
        memory: bytes that such a pass holds, by model; None where that is not known.
    """

    tables: tuple[TableCost, ...]
    samples: int
    tried: int
    at_once: Mapping[str, int]
    memory: Mapping[str, float | None]

    @property
    def seconds(self) -> float:
        """Of the whole audit in one process."""
        return sum(table.seconds for table in self.tables)

    def share(self, table: TableCost) -> float:
        """The part of the whole, between 0 and 1, that a table takes."""
        return table.seconds / self.seconds if self.seconds else 0.0

    def plain(self) -> dict[str, Any]:
        """The cost as plain data."""
        rows = [{**vars(table), "share": self.share(table)} for table in self.tables]
        return {
            "samples": self.samples,
            "tried": self.tried,
            "seconds": self.seconds,
            "tables": rows,
            "at_once": dict(self.at_once),
            "memory": dict(self.memory),
        }


@public
def audit_cost(
    models: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module],
    data: Samples,
    threat: Threat,
    *,
    center: Tensor | None = None,
    **settings: Any,
) -> AuditCost:
    """What the audit of these arguments would cost: passes are counted and times measured on the first of its samples.

    Nothing is kept. The arguments are those of `audit`; each `AuditCost.tables` entry is one table of its folder.

    Raises:
        UsageError: as `audit`.

    >>> import steadygrad as sg
    >>> data = sg.data.load("digits", "test").take(20)
    >>> model = sg.models.build("mlp", data.shape, data.classes)
    >>> cost = audit_cost(model, data, sg.linf(0.1), attacks=[sg.attacks.FGSM()], gallery=0)
    >>> round(sum(cost.share(table) for table in cost.tables), 6)
    1.0
    """
    return _AuditTrial(prepared(models, data, threat, center, {}, "", settings)).cost()


def shares_of_slow(
    models: Mapping[str, nn.Module], data: Samples, threat: Threat, *, center: Tensor | None = None, **settings: Any
) -> dict[str, float]:
    """Seconds of each task of an audit by its description; nothing where that costs too much to tell, or fails."""
    try:
        trial = _AuditTrial(prepared(models, data, threat, center, {}, "", settings))
        if trial.quick:  # the audit takes little longer than a trial of it
            return {}
        return {f"{table.model}: {table.table}": table.seconds for table in trial.cost().tables}
    except (UsageError, Failure):  # of few samples, which says nothing of all
        return {}


class _AuditTrial:
    """An audit tried on a few samples."""

    def __init__(self, ready: Prepared) -> None:
        self.ready, self.base = ready, ready.runner(Store(), Work())
        for name, model in self.base.models.items():
            with borrowed([model], self.base.device) as device:
                self.base.room(name, device)  # whose forward is none of the audit's passes
        self.places = _typical(self.base)
        facts = ready.facts.models.items()
        self.passes = {name: _one_pass(self.base, name, about["gradients"], self.places) for name, about in facts}
        self.quick = max(one.seconds for one in self.passes.values()) < _QUICK

    def cost(self) -> AuditCost:
        """What the whole costs."""
        places = self.places[: _TRIED if self.quick else 1]
        with progress.task("what the audit costs, from a trial", 1) as advance, progress.hidden():
            spent = _tried(self.ready, self.base, places)
            advance()
        tables = [_cost(*at, parts, self.passes[at[0]].seconds, self.quick) for at, parts in spent.items()]
        at_once, held = ({n: getattr(one, what) for n, one in self.passes.items()} for what in ("size", "memory"))
        return AuditCost(tuple(tables), len(self.ready.data), len(places), at_once, held)


def _typical(runner: Runner) -> list[int]:
    """Places of samples to try: of the first ones of the draw those that the first model gets right.

    An attack spends next to nothing on the others. If it gets none right, those with an answer, or all, are tried.
    """
    some = range(min(_LOOKED_AT, len(runner.data)))
    tables = [runner.run(Predicted(), name, title="a look at predictions", rows=some) for name in runner.models]
    answered = [place for place in some if not any(table["failed"][place] for table in tables)]
    return [place for place in answered if tables[0]["right"][place]] or answered or list(some)


@dataclass(frozen=True)
class _Spent:
    """What was spent on some samples of a table, which stand for `rows` of it."""

    rows: int
    tried: int
    forwards: int
    backwards: int
    seconds: float
    batch: int
    shard: int
    stopped: bool = False


class _Stopped(Failure):
    """A trial takes too long."""


@dataclass
class _Trial:
    """Tables of as many rows as the audit will ask for, measured on a few samples which stand for all."""

    runner: Runner
    samples: int
    places: Sequence[int]
    spent: dict[tuple[str, str], list[_Spent]] = field(default_factory=lambda: defaultdict(list))

    def run(
        self,
        measure: Measure,
        model: str,
        *,
        title: str = "",
        rows: Sequence[int] | None = None,
        given: Mapping[str, Array] | None = None,
        keep: Sequence[int] = (),
        **further: Any,
    ) -> Table:
        """The table of a measure; its large columns for the rows that are kept."""
        order, given = range(self.samples) if rows is None else list(rows), dict(given or {})
        stands_for: dict[tuple[int, bytes], list[int]] = defaultdict(list)  # by sample and what is given with it
        for row, place in enumerate(order):
            with_it = b"\0".join(np.ascontiguousarray(values[row]).tobytes() for values in given.values())
            stands_for[self._tried(place), with_it].append(row)
        rounds: list[list[list[int]]] = []  # in each, a sample occurs once
        times: dict[int, int] = defaultdict(int)
        for (place, _), covered in stands_for.items():
            if times[place] == len(rounds):
                rounds.append([])
            rounds[times[place]].append(covered)
            times[place] += 1
        tables = []
        for groups in rounds:
            first = [rows[0] for rows in groups]
            tried = [self._tried(order[row]) for row in first]
            own = {name: values[first] for name, values in given.items()}
            how = {**further, "rows": tried, "given": own, "keep": tried if keep else ()}
            tables.append(self._measured(measure, model, title or measure.title, sum(map(len, groups)), how))
        return _spread(Table.join(tables), [rows for groups in rounds for rows in groups], order, frozenset(keep))

    def _tried(self, place: int) -> int:
        """The place of the sample that stands for another."""
        return self.places[place % len(self.places)]

    def _measured(self, measure: Measure, model: str, title: str, rows: int, how: dict[str, Any]) -> Table:
        names, began, done = (model, *how.get("beside", ())), time.perf_counter(), self.runner.store.computed
        until = began + _LONGEST if measure.may_refuse else math.inf
        with _counted([self.runner.models[name] for name in names], until) as passes:
            table = self.runner.run(measure, model, title=title, **how)
        stopped = time.perf_counter() > until and table.refused is not None
        if self.runner.store.computed > done:
            seconds, count = time.perf_counter() - began, len(how["rows"])
            with borrowed([self.runner.models[model]], self.runner.device) as device:
                shard = self.runner.piece(measure, device)
            if measure.counts_passes and table.refused is None:
                passes = [int(table[way].sum()) for way in ("forwards", "backwards")]
            spent = _Spent(rows, count, passes[0], passes[1], seconds, self.runner.batch_size, shard, stopped)
            self.spent[model, title].append(spent)
        return table


def _spread(table: Table, groups: list[list[int]], order: Sequence[int], keep: frozenset[int]) -> Table:
    """The rows of the samples that were tried, at the places of all for which they stand."""
    at = np.empty(len(order), dtype=np.int64)
    for place, rows in enumerate(groups):
        at[rows] = place
    kept = np.array([row for row, place in enumerate(order) if place in keep], dtype=np.int64)
    columns: dict[str, Array | Kept] = {}
    for name, values in table.columns.items():
        if isinstance(values, Kept):
            columns[name] = Kept(len(order), kept, values[at[kept]].values)
        else:
            columns[name] = values[at]
    # Samples are told from each other by their names.
    columns["sample"] = np.array([f"{sample} {row}" for row, sample in zip(order, table["sample"][at], strict=True)])
    return Table(columns, table.about)


@contextlib.contextmanager
def _counted(models: Sequence[nn.Module], until: float) -> Iterator[list[int]]:
    """Samples that pass forwards and backwards through the networks of models within the block; none after a time."""
    passes = [0, 0]

    def back(gradient: Tensor) -> None:
        in_time()
        passes[1] += len(gradient)

    def in_time() -> None:
        if time.perf_counter() > until:
            raise _Stopped(f"the trial takes longer than {_LONGEST:g} seconds")

    def forth(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        in_time()
        if isinstance(output, Tensor) and output.ndim:
            passes[0] += len(output)
            if output.requires_grad:
                output.register_hook(back)  # type: ignore[no-untyped-call]

    networks = {id(network): network for network, _ in map(network_of, models)}
    handles = [model.register_forward_hook(forth) for model in networks.values()]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def _tried(ready: Prepared, base: Runner, places: Sequence[int]) -> dict[tuple[str, str], list[_Spent]]:
    """What the whole audit spends on the samples at some places, by model and table."""
    from steadygrad.audit.summary import summarize

    trial = _Trial(dataclasses.replace(base, store=Store(), _done={}), len(ready.data), places)

    def on_corrupted(kind: str) -> Tables:
        return dataclasses.replace(trial, samples=ready.facts.corrupted[kind])

    summarize(trial, ready.plan, ready.facts, ready.config, ready.shared, on_corrupted)
    return dict(trial.spent)


@dataclass(frozen=True)
class _Pass:
    """A pass of a batch through a model: its samples, the bytes that it holds, and the seconds of one sample."""

    size: int
    memory: float | None
    seconds: float


def _one_pass(runner: Runner, name: str, gradients: bool, places: Sequence[int]) -> _Pass:
    """A pass, forward or backward, of as many samples as are taken at once."""
    with borrowed([runner.models[name]], runner.device) as device:
        with room_for(runner.room(name, device)):
            size = min(len(runner.data), at_once(runner.batch_size, runner.data.shape, device))
        some = runner.data.batch(list(places[:size]))[0].to(device)
        x = some.repeat(math.ceil(size / len(some)), *[1] * (some.ndim - 1))[:size]
        seconds: list[float] = []
        with frozen(runner.models[name]) as model:
            held = need(model, x[:2])
            while len(seconds) < 2 or (len(seconds) < 10 and sum(seconds) < 1):
                began = time.perf_counter()
                if gradients:
                    gradient(lambda inputs: logits_of(model, inputs).sum(), x)
                else:
                    model(x)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds.append(time.perf_counter() - began)
    return _Pass(
        size,
        held * size if held is not None and math.isfinite(held) else None,
        min(seconds) / size / (2 if gradients else 1) / network_of(runner.models[name])[1],
    )


def _cost(model: str, title: str, parts: list[_Spent], one_pass: float, quick: bool) -> TableCost:
    """The cost of a table from that of the samples that were tried."""
    forwards = backwards = seconds = 0.0
    shards = 0
    for part in parts:
        share, pieces = part.rows / part.tried, math.ceil(part.rows / part.shard)
        forwards, backwards, shards = (
            forwards + part.forwards * share,
            backwards + part.backwards * share,
            shards + pieces,
        )
        through = one_pass * (part.forwards + part.backwards)
        besides = max(0.0, part.seconds - through)
        # What a quick model spends besides its passes, it spends once for a batch, however large.
        seconds += through * share + besides * (max(pieces, math.ceil(part.rows / part.batch)) if quick else share)
    stopped = any(part.stopped for part in parts)
    return TableCost(model, title, sum(p.rows for p in parts), shards, forwards, backwards, seconds, stopped)
