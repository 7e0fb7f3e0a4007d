"""A Ray cluster: a shard is a task, models and data are sent once, and this process alone writes."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from steadygrad import __version__
from steadygrad.engines.engine import ENGINES, Engine
from steadygrad.errors import Failure, UsageError
from steadygrad.measuring.jobs import Job, Work, naming
from steadygrad.measuring.runner import Runner, borrowed
from steadygrad.measuring.store import Store
from steadygrad.measuring.table import Table
from steadygrad.values import NotNegative, Whole

_log = logging.getLogger("steadygrad")


@ENGINES.register(
    "ray",
    summary="the machines of a Ray cluster",
    reference="Moritz et al. 2018, arXiv 1712.05889",
    cost="none",
    order=0,
)
@dataclass(frozen=True)
class Ray(Engine):
    """Tasks on a Ray cluster, to which models and data are sent once; the machines need see no common folder.

    Args:
        address: of the cluster; "auto" for the one that runs here or that `RAY_ADDRESS` names, or for the connection
            that the program has already; "local" starts one on this machine.
        gpus_per_task: GPUs, or a part of one, of each task, which then computes there; 0 for none.
        cpus_per_task: threads of a task.
        retries: how often a task is tried again whose process or machine ended.

    >>> Ray(gpus_per_task=0.5).together  # this process alone writes
    False
    """

    address: str = "auto"
    gpus_per_task: NotNegative = 0.0
    cpus_per_task: NotNegative = 1.0
    retries: Whole = 3

    def check(self) -> None:
        found = importlib.util.find_spec("ray")
        if found is None or found.origin is None:  # such as a folder of that name, which Ray leaves among the temporary
            raise UsageError("the engine ray needs Ray, which is not installed: pip install 'steadygrad[ray]'")

    @contextlib.contextmanager
    def working(self, again: Callable[[], object]) -> Iterator[Work]:
        import ray

        begun = ray.is_initialized()
        if not begun:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to others about what runs here
            how: dict[str, Any] = {"include_dashboard": False} if self.address == "local" else {}
            try:
                ray.init(self.address, logging_level=logging.ERROR, log_to_driver=False, **how)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UsageError(
                    f"address: there is no Ray cluster at {self.address!r} ({error}): start one with `ray start "
                    "--head`, name it (--address HOST:6379), or give local, which starts one on this machine"
                ) from error
        try:
            yield Tasks(self)
        finally:
            if not begun:
                ray.shutdown()


@dataclass
class Tasks(Work):
    """Computes shards by tasks of a cluster."""

    engine: Ray
    _sent: dict[int, tuple[Runner, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.elsewhere = "cuda" if self.engine.gpus_per_task else "cpu"

    def tables(self, job: Job, store: Store, place: str) -> Iterator[tuple[int, Table]]:
        import ray

        missing = []
        for i, name in enumerate(job.names):
            found = store.read(place, name)
            if found is None:
                missing.append(i)
            else:
                yield i, found
        if not missing:
            return
        engine, tries = self.engine, Counter[int]()
        task: Any = ray.remote(_computed).options(
            num_cpus=engine.cpus_per_task, num_gpus=engine.gpus_per_task, max_retries=0, scheduling_strategy="SPREAD"
        )
        given = [self._runner(job.runner), ray.put(dataclasses.replace(job, runner=_ELSEWHERE)), sys.path, __version__]
        under_way = {task.remote(given, i): i for i in missing}
        try:
            while under_way:
                (done,), _ = ray.wait(list(under_way), num_returns=1)
                i = under_way.pop(done)
                with naming(job, i):
                    try:
                        found = Table.decoded(ray.get(done))
                    except ray.exceptions.RayError as error:
                        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
                        if not isinstance(cause, ray.exceptions.RayError):  # it was raised by the work itself
                            raise cause from None
                        tries[i] += 1  # its process or machine ended, or the memory was full
                        why = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
                        if tries[i] > engine.retries:
                            raise Failure(f"its task ended early at the last of {tries[i]} tries ({why})") from error
                        _log.warning(
                            "%s: its task ended early and is tried again, %d of %d (%s)",
                            job.says(i), tries[i], engine.retries, why,
                        )  # fmt: skip
                        under_way[task.remote(given, i)] = i
                        continue
                    store.keep(place, job.names[i], found)
                yield i, found
        finally:
            for left in under_way:
                ray.cancel(left, force=True)

    def _runner(self, runner: Runner) -> Any:
        """The reference of a runner, with its models and data, which is sent once."""
        import ray

        if id(runner) not in self._sent:
            bare = dataclasses.replace(runner, store=Store(together=True), work=Work(), _keys={}, _code={}, _done={})
            try:
                with borrowed(list(runner.models.values()), "cpu"):
                    self._sent[id(runner)] = runner, ray.put(bare)
            except Exception as error:  # whatever pickling a caller's class ends in
                raise UsageError(f"a model or the data cannot be handed to Ray: {error.__cause__ or error}") from error
        return self._sent[id(runner)][1]


_ELSEWHERE: Any = None
"""Stands for the runner of a job that is sent, which goes by itself."""
_runners: dict[str, Runner] = {}
"""The runner that the process of a task has fetched, by its reference."""


def _computed(given: list[Any], i: int) -> bytes:
    """A shard as bytes, in the process of a task. References within a list are fetched here, the runner's once."""
    import ray

    runner, job, paths, version = given
    if version != __version__:
        raise Failure(f"a machine of the cluster has steadygrad {__version__}, and this one {version}: give them one")
    sys.path += [path for path in paths if path not in sys.path]
    try:
        if runner.hex() not in _runners:
            _runners.clear()
            _runners[runner.hex()] = ray.get(runner)
        found: Job = dataclasses.replace(ray.get(job), runner=_runners[runner.hex()])
    except ray.exceptions.RaySystemError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise UsageError(f"a machine of the cluster cannot read the models or the data: {reason}") from None
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    with borrowed([found.runner.models[name] for name in found.models], str(found.device)) as device:
        return dataclasses.replace(found, device=device).compute(i).encoded()
