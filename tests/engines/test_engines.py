"""Several processes make one audit: each takes the shards that no other one has, and the tables are those of one."""

from __future__ import annotations

import importlib.util
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import steadygrad as sg
from steadygrad import provenance
from steadygrad.attacks import FGSM, PGD, Square
from steadygrad.audit.audit_plan import AuditPlan
from steadygrad.audit.findings import Audit
from steadygrad.errors import Failure, UsageError
from steadygrad.locks import InUse
from steadygrad.measuring.store import Store
from steadygrad.measuring.table import Kept, Table
from steadygrad.run_folders import run_folder

TESTS = Path(__file__).parents[1]
SETTINGS: dict[str, Any] = {"attacks": [PGD(steps=5), FGSM()], "attributions": (), "checked": 20, "gallery": 2}


class Small(nn.Module):
    """Noticed by its own code, and slow where a test asks for it."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.pause = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10)), pause

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.pause * float(os.environ.get("PAUSE", "0")))
        found: torch.Tensor = self.layers(x)
        return found


def run(out: str | Path, model: nn.Module | None = None, **how: Any) -> Audit:
    """One audit in shards of ten samples."""
    data = sg.data.load("digits", "test").take(40)
    return sg.audit({"m": model or Small()}, data, sg.linf(0.1), out=out, **{**SETTINGS, "shard": 10, **how})


def tables(out: Path) -> dict[str, list[Any]]:
    """All columns of all tables of a run folder, by place."""
    store = Store(out / "tables")
    places = sorted({str(p.parent.relative_to(out / "tables")) for p in (out / "tables").rglob("[!.]*.parquet")})
    found = {}
    for place in places:
        table = store.table(place)
        assert table is not None
        columns = [c.values if isinstance(c, Kept) else c for _, c in sorted(table.columns.items())]
        found[place] = [np.asarray(c).tolist() for c in columns]
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    run(out)
    return out


def process(out: Path, pause: float = 0.0, silent: float = 60.0, within: Sequence[str] = ()) -> subprocess.Popen[str]:
    """A process that makes the audit together with others, maybe within another command."""
    beats = f"from steadygrad import heartbeats\nheartbeats.BEAT, heartbeats.SILENT = {silent / 8}, {silent}\n"
    source = f"{beats}from engines.test_engines import run\nrun({str(out)!r}, engine='shared')"
    paths = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PAUSE": str(pause)}
    return subprocess.Popen([*within, sys.executable, "-c", source], env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_three_processes_of_which_one_is_killed_make_the_tables_of_one(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    running = [process(out) for _ in range(3)]
    deadline = time.monotonic() + 60
    while len(list(out.rglob("[!.]*.parquet"))) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    running[0].send_signal(signal.SIGKILL)
    ended = [one.communicate(timeout=120)[1] for one in running]
    assert [one.returncode for one in running] == [-signal.SIGKILL, 0, 0], ended
    np.testing.assert_equal(tables(out), tables(alone))
    mine, theirs = _lasting(out), _lasting(alone)
    assert mine == theirs
    assert run(out).summary["models"] == theirs["models"]  # one that works alone goes on there too
    assert not [*out.rglob("*.lock")][1:]


def _lasting(out: Path) -> dict[str, Any]:
    from steadygrad.files import read_json

    summary, sound = read_json(out / "summary.json")
    assert sound
    return {k: v for k, v in summary.items() if k not in ("created", "seconds", "machine")}


@pytest.mark.slow
def test_workers_of_one_call_make_the_tables_of_one(alone: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    found = run(tmp_path / "run", workers=2)
    np.testing.assert_equal(tables(tmp_path / "run"), tables(alone))
    assert _lasting(tmp_path / "run") == _lasting(alone)
    assert found.summary["models"] == _lasting(alone)["models"]
    assert torch.get_num_threads() == threads


def test_a_shard_that_another_process_computes_is_left_to_it(tmp_path: Path) -> None:
    one, other = Store(tmp_path, together=True), Store(tmp_path, together=True)
    shard = Table({"sample": np.array(["a"]), "label": np.array([1])})
    seen: list[Table | None] = []

    def compute() -> Table:
        seen.append(other.get("p", "a", lambda: pytest.fail("computed twice")))
        return shard

    found = one.get("p", "a", compute)
    assert found is shard
    assert seen == [None]
    again = other.get("p", "a", lambda: pytest.fail("computed twice"))
    assert again is not None
    assert again["label"].tolist() == [1]
    assert (one.computed, other.computed) == (1, 0)
    assert [p.name[0] for p in (tmp_path / "p").iterdir()] == ["a"]


def test_a_shard_whose_process_fails_is_taken_by_another(tmp_path: Path) -> None:
    one, other = Store(tmp_path, together=True), Store(tmp_path, together=True)

    def fail() -> Table:
        raise Failure("no")

    with pytest.raises(Failure, match="no"):
        one.get("p", "a", fail)
    assert other.get("p", "a", lambda: Table({"sample": np.array(["a"])})) is not None


def test_the_lock_of_a_killed_process_is_removed_by_the_next_run(tmp_path: Path) -> None:
    left = []
    with run_folder(tmp_path, {"a": 1}, together=True):

        def compute() -> Table:
            (path,) = (tmp_path / "tables" / "p").iterdir()
            left.append(path.rename(path.with_name(f"{path.name}-left.lock")))  # as if nobody came to remove it
            return Table({"sample": np.array(["a"])})

        Store(tmp_path / "tables", together=True).get("p", "a", compute)
        assert left[0].exists()
    with run_folder(tmp_path, {"a": 1}, together=True):
        assert not left[0].exists()


def test_runs_alone_and_together_keep_out_of_each_other_s_way(tmp_path: Path) -> None:
    with run_folder(tmp_path, {"a": 1}, together=True):
        with pytest.raises(InUse, match=r"several processes are working in the output folder .* together"):
            run_folder(tmp_path, {"a": 1}).__enter__()
        with pytest.raises(UsageError, match="another configuration"):
            run_folder(tmp_path, {"a": 2}, together=True).__enter__()
        with run_folder(tmp_path, {"a": 1}, together=True):
            pass
    with run_folder(tmp_path, {"a": 1}):
        pass


def test_all_that_work_together_have_one_kind_of_device(tmp_path: Path) -> None:
    with run_folder(tmp_path, {"a": 1}, together=True, by="cuda"):
        with run_folder(tmp_path, {"a": 1}, together=True, by="cuda"):
            pass
        with pytest.raises(UsageError, match=r"make this run on cuda, and this one would on cpu.*--device"):
            run_folder(tmp_path, {"a": 1}, together=True, by="cpu").__enter__()
    with run_folder(tmp_path, {"a": 1}, together=True, by="cpu"):
        pass


def test_it_needs_a_folder_and_models_that_can_be_handed_over(tmp_path: Path) -> None:
    data = sg.data.load("digits", "test").take(20)
    with pytest.raises(UsageError, match="share their work in a folder: give out="):
        sg.audit(Small(), data, sg.linf(0.1), engine="shared", **SETTINGS)

    class Own(Small):
        pass

    with pytest.raises(UsageError, match=r"cannot be handed to another process .*engine='shared'"):
        run(tmp_path / "a", Own(), workers=2)
    opaque = sg.BlackBox(eval("lambda x: x.reshape(len(x), -1)[:, :10]"))
    with pytest.raises(UsageError, match=r"cannot be read, so that processes cannot tell .*--version"):
        run(tmp_path / "b", opaque, engine="shared", attacks=[Square(queries=5)], gallery=0)


class Broken(Small):
    """Its file, or the service that it asks, fails at one sample, which no other one can make up for."""

    bad: torch.Tensor

    def __init__(self, bad: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("bad", bad)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x == self.bad).flatten(1).all(1).any():
            raise OSError("no answer")
        return super().forward(x)


@pytest.mark.parametrize(
    "engine", ["local", pytest.param("local:workers=2", marks=pytest.mark.slow), "shared"], ids=["one", "two", "shared"]
)
def test_a_shard_that_always_fails_ends_the_run_by_its_name_and_the_rest_is_kept(tmp_path: Path, engine: str) -> None:
    data = sg.data.load("digits", "test").take(40)
    model = Broken(data.batch([25])[0][0])
    place = data.draw(None, 0).ids.index(data.ids[25]) // 10 * 10
    first, last = (data.draw(None, 0).ids[i] for i in (place, place + 9))
    said = rf"m: Predicted, samples '{first}' to '{last}': .*no answer"
    with pytest.raises((Failure, UsageError), match=said):
        run(tmp_path, model, engine=engine)
    kept = {path.name[:7] for path in (tmp_path / "tables").rglob("[!.]*.parquet")}
    assert f"{place:07d}" not in kept
    assert f"{0:07d}" in kept or place == 0
    assert not multiprocessing.active_children()
    assert not list((tmp_path / "tables").rglob(".*")) or engine != "local"


def test_a_shard_at_which_processes_die_is_given_up_by_name(tmp_path: Path) -> None:
    claim, store = tmp_path / "p" / ".partial-a", Store(tmp_path, together=True)
    claim.parent.mkdir()
    for dead in (0, 1):
        claim.write_text(json.dumps({"machine": "another", "process": 1, "dead": dead}))
        os.utime(claim, (0, 0))
        if dead:
            with pytest.raises(Failure, match="2 processes ended, or fell silent, while they computed this"):
                store.get("p", "a", lambda: pytest.fail("tried again"))
        else:
            assert store.get("p", "a", lambda: Table({"sample": np.array(["a"])})) is not None
            next(claim.parent.iterdir()).unlink()


@pytest.mark.slow
def test_what_a_stopped_process_had_is_done_by_another_and_both_end_well(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped = process(out, pause=0.02, silent=4.0)
    deadline = time.monotonic() + 60
    while not list((out / "tables").rglob(".partial-0*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGSTOP)
    other = process(out, silent=4.0)
    assert other.communicate(timeout=120)[1] == ""
    assert other.returncode == 0
    np.testing.assert_equal(tables(out), tables(alone))
    stopped.send_signal(signal.SIGCONT)
    stopped.communicate(timeout=120)
    np.testing.assert_equal(tables(out), tables(alone))
    assert _lasting(out) == _lasting(alone)


@pytest.mark.slow
def test_processes_that_see_the_folder_by_other_paths_and_networks_make_the_tables_of_one(
    alone: Path, tmp_path: Path
) -> None:
    (tmp_path / "theirs").symlink_to(tmp_path / "mine")
    apart = ["unshare", "--user", "--map-root-user", "--net", "--uts", "--pid", "--fork"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        apart = []  # where namespaces are not allowed, two paths are left
    (tmp_path / "mine").mkdir()
    running = [process(tmp_path / name / "run", within=how) for name, how in (("mine", []), ("theirs", apart))]
    ended = [one.communicate(timeout=120)[1] for one in running]
    assert [one.returncode for one in running] == [0, 0], ended
    np.testing.assert_equal(tables(tmp_path / "mine" / "run"), tables(alone))
    assert _lasting(tmp_path / "mine" / "run") == _lasting(alone)


def test_an_engine_and_its_settings_are_named(tmp_path: Path) -> None:
    plan = AuditPlan(engine="shared", workers=3)
    assert plan.engine == sg.engines.Shared(workers=3)
    assert plan.engine.piece == 50
    assert AuditPlan(workers=1).engine.piece is None
    assert AuditPlan(engine="ray:retries=1", address="local", gpus_per_task="1/2").engine == sg.engines.Ray(
        "local", gpus_per_task=0.5, retries=1
    )
    with pytest.raises(UsageError, match=r"workers \(--workers\) is no setting of the engine ray"):
        AuditPlan.read({"engine": "ray", "workers": 2})
    with pytest.raises(UsageError, match=r"gpus_per_task \(--gpus-per-task\) is no setting of the engine local"):
        AuditPlan.read({"gpus_per_task": 1})
    with pytest.raises(UsageError, match="there is no engine 'sharde'; did you mean 'shared'"):
        AuditPlan.read({"engine": "sharde"})


def test_ray_that_is_not_installed_is_named_before_there_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else found(name))
    with pytest.raises(UsageError, match=r"pip install 'steadygrad\[ray\]'"):
        run(tmp_path / "run", engine="ray")
    assert not (tmp_path / "run").exists()


def test_a_run_on_machines_of_several_kinds_says_so_on_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steadygrad import report

    one = provenance.machine()
    kinds = [one, {**one, "device": "NVIDIA H200"}, {**one, "host": "another"}]
    shards = itertools.cycle(kinds)
    monkeypatch.setattr(provenance, "machine", lambda device="cpu": next(shards))
    found = run(tmp_path).summary["machines"]
    assert [m["device"] for m in found] == ["NVIDIA H200", "cpu"]
    page = report.write(tmp_path).read_text("utf-8")
    assert "Machines of 2 kinds computed this audit: NVIDIA H200 (PyTorch" in page
    monkeypatch.setattr(provenance, "machine", lambda device="cpu": one)
    alike = run(tmp_path / "alike")
    assert alike.summary["machines"] == []
    assert "kinds computed this audit" not in report.write(tmp_path / "alike").read_text("utf-8")
