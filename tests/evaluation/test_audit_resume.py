"""An audit that was killed, interrupted or ran out of disk continues and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import steadygrad as sg
from children import Parent, alive
from steadygrad.attacks import FGSM, PGD, Attack
from steadygrad.audit.schema import Summary
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import Failure
from steadygrad.evaluation import Audit, robustness
from steadygrad.evaluation.records import Records

pytestmark = pytest.mark.slow

# A helper process that imports the library once, then forks a child per line of input to run an audit in.
NURSERY = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[1])
import torch
torch.set_num_threads(1)
import pandas, pyarrow.parquet, scipy.stats, steadygrad as sg
from evaluation.test_audit_resume import run
print("ready", flush=True)
for line in sys.stdin:
    weights, out = json.loads(line)
    child = os.fork()
    if child == 0:
        run(weights, out)
        os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)
"""

SETTINGS: dict[str, Any] = {"attacks": [PGD(steps=5), FGSM()], "attributions": (), "checked": 20, "gallery": 2}


def run(weights: str, out: str | Path | None) -> Audit:
    """One audit in cells of ten samples, so that there are many moments to be killed at."""
    robustness.CHUNK = 10
    data = sg.data.load("digits", "test").take(40)
    model = sg.models.load(weights)
    return sg.audit(model, data, sg.linf(0.1), out=out, **SETTINGS)


def lasting(summary: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on when and how often an audit was run."""
    return {k: v for k, v in summary.items() if k not in ("created", "seconds", "machine")}


@pytest.fixture(autouse=True)
def _chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "CHUNK", 10)


@pytest.fixture(scope="module")
def weights(honest: Classifier, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    honest.save(path)
    return str(path)


@pytest.fixture(scope="module")
def undisturbed(weights: str, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    chunk = robustness.CHUNK
    try:
        return run(weights, tmp_path_factory.mktemp("undisturbed") / "run")
    finally:
        robustness.CHUNK = chunk


def _ends_the_same(weights: str, out: Path, undisturbed: Audit) -> None:
    found = run(weights, out)
    assert lasting(found.summary) == lasting(undisturbed.summary)
    Summary.model_validate(found.summary)
    written = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert written == found.summary
    assert undisturbed.folder is not None
    with np.load(out / "pictures.npz") as mine, np.load(undisturbed.folder / "pictures.npz") as theirs:
        assert set(mine.files) == set(theirs.files)
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine.files)
    cells = [{p.name for p in (folder / "records").glob("[!.]*")} for folder in (out, undisturbed.folder)]
    assert cells[0] == cells[1]
    order = ["model", "attack", "sample"]
    a, b = (r.frame.sort_values(order).reset_index(drop=True) for r in (found.records, undisturbed.records))
    assert a[list(b.columns)].to_dict() == b.to_dict()


class Nursery(Parent):
    """Starts audits in processes that can be killed."""

    def __init__(self) -> None:
        super().__init__(NURSERY)

    def audit(self, weights: str, out: Path, killed_when: Callable[[], bool]) -> int:
        """Run an audit, kill -9 it once the condition holds; the exit code, -9 if it was killed."""
        child = self.start([weights, str(out)])
        deadline = time.monotonic() + 60
        while not killed_when() and time.monotonic() < deadline and alive(child):
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        return int(self.line())


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    made = Nursery()
    yield made
    made.close()


def _kill_and_continue(nursery: Nursery, weights: str, undisturbed: Audit, out: Path, moment: int) -> int:
    """Kill an audit a little after it has written so many cells; returns its exit code."""
    assert undisturbed.folder is not None
    drawn = random.Random(moment)
    total = len(list((undisturbed.folder / "records").iterdir()))
    # Of the first half: a busy machine may see the cell late, and the audit must not have ended by then.
    after, pause = drawn.randrange(total // 2), drawn.uniform(0, 0.02)

    def reached() -> bool:
        if not (out / "records").is_dir() or len(os.listdir(out / "records")) < after:
            return False
        time.sleep(pause)
        return True

    code = nursery.audit(weights, out, reached)
    _ends_the_same(weights, out, undisturbed)
    return code


@pytest.mark.parametrize("moment", range(3))
def test_kill_9_at_a_random_moment_and_run_again(
    nursery: Nursery, weights: str, undisturbed: Audit, tmp_path: Path, moment: int
) -> None:
    assert _kill_and_continue(nursery, weights, undisturbed, tmp_path / "run", moment) == -signal.SIGKILL


@pytest.mark.parametrize("moment", range(3, 13))
def test_kill_9_at_ten_more_moments(
    nursery: Nursery, weights: str, undisturbed: Audit, tmp_path: Path, moment: int
) -> None:
    assert _kill_and_continue(nursery, weights, undisturbed, tmp_path / "run", moment) == -signal.SIGKILL


def test_killed_again_and_again_it_still_ends(
    nursery: Nursery, weights: str, undisturbed: Audit, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for cells in (1, 8, 15):
        nursery.audit(
            weights, out, lambda n=cells: (out / "records").is_dir() and len(os.listdir(out / "records")) >= n
        )
    _ends_the_same(weights, out, undisturbed)


def test_a_child_that_is_left_alone_ends_as_here(
    nursery: Nursery, weights: str, undisturbed: Audit, tmp_path: Path
) -> None:
    assert nursery.audit(weights, tmp_path / "run", lambda: (tmp_path / "run" / "summary.json").exists()) in (0, -9)
    _ends_the_same(weights, tmp_path / "run", undisturbed)


def _interrupting(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> list[int]:
    """Raise the error in the so-manieth attack; returns the list whose length counts attacks."""
    calls: list[int] = []
    attack = Attack.__call__

    def counted(self: Attack, *args: Any, **keywords: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == call:
            raise error
        return attack(self, *args, **keywords)

    monkeypatch.setattr(Attack, "__call__", counted)
    return calls


@pytest.mark.parametrize("call", [1, 6, 19])
def test_an_interrupt_keeps_what_was_done(
    monkeypatch: pytest.MonkeyPatch, weights: str, undisturbed: Audit, tmp_path: Path, call: int
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        _interrupting(patch, call, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(weights, out)
    assert not (out / "summary.json").exists()
    with monkeypatch.context() as patch:
        rest = _interrupting(patch, 0, KeyboardInterrupt())
        _ends_the_same(weights, out, undisturbed)
    with monkeypatch.context() as patch:
        everything = _interrupting(patch, 0, KeyboardInterrupt())
        run(weights, tmp_path / "other")
    # Each finished cell of one attack call was kept; only the one under way is made again.
    assert len(rest) == len(everything) - (call - 1)


def test_without_its_summary_a_finished_folder_is_only_drawn_again(
    monkeypatch: pytest.MonkeyPatch, weights: str, undisturbed: Audit, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run(weights, out)
    (out / "summary.json").unlink()
    times = {p: p.stat().st_mtime_ns for p in (out / "records").iterdir()}
    calls = _interrupting(monkeypatch, 0, KeyboardInterrupt())
    _ends_the_same(weights, out, undisturbed)
    assert {p: p.stat().st_mtime_ns for p in (out / "records").iterdir()} == times
    assert len(calls) == 2  # the pictures and the grid


def test_remains_of_a_killed_write_do_not_disturb(weights: str, undisturbed: Audit, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(weights, out)
    (out / "records" / ".abc.parquet.x.parquet").write_bytes(b"PAR1")
    (out / ".summary.json.x.json").write_text("{")
    _ends_the_same(weights, out, undisturbed)
    assert len(Records.read(out / "records"))


def test_a_truncated_cell_is_named_and_made_again_once_deleted(
    weights: str, undisturbed: Audit, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run(weights, out)
    (out / "summary.json").unlink()
    cell = sorted((out / "records").iterdir())[3]
    cell.write_bytes(cell.read_bytes()[:200])
    with pytest.raises(Failure, match=rf"{cell.name}.*delete the file to have it made again"):
        run(weights, out)
    cell.unlink()
    _ends_the_same(weights, out, undisturbed)


@pytest.mark.parametrize("write", [1, 5, 20])
def test_a_full_disk_is_named_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, weights: str, undisturbed: Audit, tmp_path: Path, write: int
) -> None:
    out = tmp_path / "run"
    real, writes = os.replace, []

    def full(source: Any, target: Any) -> None:
        writes.append(target)
        if len(writes) >= write:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(Failure, match=r"cannot write .*: No space left on device"):
            run(weights, out)
    assert not list(out.rglob(".*"))
    _ends_the_same(weights, out, undisturbed)


def test_the_records_of_the_second_run_are_those_of_the_first(
    weights: str, undisturbed: Audit, digits: Dataset
) -> None:
    again = run(weights, undisturbed.folder)
    assert set(again.records.frame["sample"]) == set(digits.ids[:40])
    assert len(again.records) == len(undisturbed.records) == 80
    assert again.summary == undisturbed.summary
