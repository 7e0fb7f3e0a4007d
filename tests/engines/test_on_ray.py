"""An audit on two nodes of a Ray cluster, which run on this machine: its tables are those of one process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import steadygrad as sg
from engines.test_engines import Broken, Small, run, tables
from steadygrad.attacks import FGSM
from steadygrad.errors import Failure, UsageError

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ray: Any = pytest.importorskip("ray", reason="needs Ray: pip install 'steadygrad[ray]'")

SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, to which this process is connected."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        nodes = Cluster(initialize_head=True, head_node_args={**SMALL, "include_dashboard": False})
        try:
            nodes.second = nodes.add_node(**SMALL)
            ray.init(nodes.address, log_to_driver=False, logging_level=logging.ERROR)
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()


class Slow(Small):
    """As slow as it takes to remove a node meanwhile."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.01)
        return super().forward(x)


def test_a_shard_that_always_fails_ends_the_run_by_its_name_and_the_rest_is_kept(cluster: Any, tmp_path: Path) -> None:
    data = sg.data.load("digits", "test").take(40)
    place = data.draw(None, 0).ids.index(data.ids[25]) // 10 * 10
    with pytest.raises((Failure, UsageError), match=r"m: Predicted, samples '.*no answer"):
        run(tmp_path, Broken(data.batch([25])[0][0]), engine="ray")
    assert f"{place:07d}" not in {path.name[:7] for path in (tmp_path / "tables").rglob("[!.]*.parquet")}


def test_what_cannot_be_sent_is_refused(cluster: Any, tmp_path: Path) -> None:
    model = Small()
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"a model or the data cannot be handed to Ray: cannot pickle '_thread.lock'"):
        run(tmp_path, model, engine="ray", version="1")


def test_two_nodes_of_which_one_is_removed_half_way_make_the_tables_of_one_process(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, removed = tmp_path / "run", threading.Event()

    def remove() -> None:
        while len(list(out.rglob("[!.]*.parquet"))) < 8:
            time.sleep(0.01)
        cluster.remove_node(cluster.second, allow_graceful=False)
        removed.set()

    removing = threading.Thread(target=remove)
    removing.start()
    with caplog.at_level(logging.WARNING, "steadygrad"):
        found = run(out, Slow(), engine=sg.engines.Ray(), attacks=[FGSM()])
    removing.join(30)
    assert removed.is_set()
    alone = run(tmp_path / "alone", Slow(), attacks=[FGSM()])
    np.testing.assert_equal(tables(out), tables(tmp_path / "alone"))
    assert found.summary["models"] == alone.summary["models"]
    told = [line for line in caplog.messages if "ended early" in line]
    assert all("samples 'digits/" in line and "tried again, 1 of 3" in line for line in told)
    assert ray.is_initialized()  # the caller's connection stays


def test_a_task_whose_process_always_ends_is_given_up_by_name(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"m: Predicted, samples '.*: its task ended early at the last of 1 tries"):
        run(tmp_path, Deadly(), engine="ray:retries=0")


class Deadly(Small):
    """Ends the process of a task."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if ray.get_runtime_context().worker.mode != ray.SCRIPT_MODE:
            import os

            os._exit(3)
        return super().forward(x)


def test_an_address_without_a_cluster_is_named(tmp_path: Path) -> None:
    source = "no cluster"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "is_initialized", lambda: False)

        def fail(*given: Any, **how: Any) -> None:
            raise ConnectionError(source)

        patch.setattr(ray, "init", fail)
        with pytest.raises(UsageError, match=rf"there is no Ray cluster at 'auto' \({source}\): start one"):
            run(tmp_path / "run", engine="ray")
