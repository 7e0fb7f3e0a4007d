"""An audit that was killed, interrupted or ran out of disk continues and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import errno
import logging
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
from steadygrad.audit.audit import read
from steadygrad.audit.findings import Audit
from steadygrad.audit.schema import Summary
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import Failure, UsageError
from steadygrad.files import read_json, write_json
from steadygrad.measuring.measure import Measure
from steadygrad.measuring.measures.curve import GRID

pytestmark = pytest.mark.slow

# A helper process that imports the library once, then forks a child per line of input to run an audit in.
NURSERY = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[1])
import torch
torch.set_num_threads(1)
import pandas, pyarrow.parquet, scipy.stats, steadygrad as sg
from audit.test_resume import run
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
    """One audit in shards of ten samples, so that there are many moments to be killed at."""
    Measure.shard = 10
    data = sg.data.load("digits", "test").take(40)
    model = sg.models.load(weights)
    return sg.audit(model, data, sg.linf(0.1), out=out, **SETTINGS)


def shards(out: Path) -> list[Path]:
    """The files of the tables of a folder."""
    return sorted(p for p in out.rglob("*.parquet") if p.name[0] != ".")


def lasting(summary: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on when and how often an audit was run."""
    return {k: v for k, v in summary.items() if k not in ("created", "seconds", "machine")}


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Measure, "shard", 10)


@pytest.fixture(scope="module")
def weights(honest: Classifier, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    honest.save(path)
    return str(path)


@pytest.fixture(scope="module")
def undisturbed(weights: str, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    usual = Measure.shard
    try:
        return run(weights, tmp_path_factory.mktemp("undisturbed") / "run")
    finally:
        Measure.shard = usual


def _ends_the_same(weights: str, out: Path, undisturbed: Audit) -> None:
    found = run(weights, out)
    assert lasting(found.summary) == lasting(undisturbed.summary)
    Summary.model_validate(found.summary)
    written = read_json(out / "summary.json")[0]
    assert written == found.summary
    assert undisturbed.folder is not None
    assert set(found.arrays) == set(undisturbed.arrays)
    assert all(np.array_equal(found.arrays[name], values) for name, values in undisturbed.arrays.items())
    # Without the hash of the content, which says when it was made.
    names = [
        [str(p.relative_to(folder)).rpartition("-")[0] for p in shards(folder)] for folder in (out, undisturbed.folder)
    ]
    assert names[0] == names[1]
    assert found.records.frame.equals(undisturbed.records.frame)
    assert found.distances.frame.equals(undisturbed.distances.frame)
    assert read(out).summary == found.summary


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
    """Kill an audit a little after it has written so many shards; returns its exit code."""
    assert undisturbed.folder is not None
    drawn = random.Random(moment)
    total = len(shards(undisturbed.folder))
    # Of the first half: a busy machine may see the shard late, and the audit must not have ended by then.
    after, pause = drawn.randrange(total // 2), drawn.uniform(0, 0.02)

    def reached() -> bool:
        if len(shards(out)) < after:
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
    for count in (1, 8, 15):
        nursery.audit(weights, out, lambda n=count: len(shards(out)) >= n)
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
    # Each finished shard was kept; only the one under way is made again, which on the curve takes several calls.
    again = len(rest) - (len(everything) - (call - 1))
    assert 0 <= again <= (0 if call <= 8 else len(GRID))


def test_without_its_summary_a_finished_folder_is_only_read(
    monkeypatch: pytest.MonkeyPatch, weights: str, undisturbed: Audit, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run(weights, out)
    (out / "summary.json").unlink()
    times = {p: p.stat().st_mtime_ns for p in shards(out)}
    calls = _interrupting(monkeypatch, 0, KeyboardInterrupt())
    _ends_the_same(weights, out, undisturbed)
    assert {p: p.stat().st_mtime_ns for p in shards(out)} == times
    assert calls == []


def test_remains_of_a_killed_write_do_not_disturb(weights: str, undisturbed: Audit, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(weights, out)
    (shards(out)[0].parent / ".partial-0f-abc.parquet").write_bytes(b"PAR1")
    (out / ".summary.json.x.json").write_text("{")
    _ends_the_same(weights, out, undisturbed)


def test_a_truncated_shard_is_named_in_the_log_and_made_again(
    weights: str, undisturbed: Audit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    run(weights, out)
    (out / "summary.json").unlink()
    shard = shards(out)[3]
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(Failure, match=rf"{shard.name}.*run the same command again"):
        read(out)
    with caplog.at_level(logging.WARNING, "steadygrad"):
        _ends_the_same(weights, out, undisturbed)
    (line,) = caplog.messages
    assert f"{shard} is damaged and is made again" in line


def test_a_run_that_is_not_complete_is_not_read(weights: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(weights, out)
    shards(out)[3].unlink()
    with pytest.raises(Failure, match=r"the run is not complete: .*; run the same command again"):
        read(out)
    (out / "tables" / "facts.json").write_text("{")
    with pytest.raises(Failure, match=r"cannot read .*facts\.json: .*; run the same command again"):
        read(out)
    with pytest.raises(UsageError, match="there is no run of an audit at"):
        read(tmp_path)


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
    assert not list(out.rglob(".partial*"))
    _ends_the_same(weights, out, undisturbed)


def test_the_records_of_the_second_run_are_those_of_the_first(
    weights: str, undisturbed: Audit, digits: Dataset
) -> None:
    again = run(weights, undisturbed.folder)
    assert set(again.records.frame["sample"]) == set(digits.ids[:40])
    assert len(again.records) == len(undisturbed.records) == 120
    assert again.summary == undisturbed.summary


def test_facts_that_say_anything_under_their_checksum_are_refused(weights: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(weights, out)
    path = out / "tables" / "facts.json"
    facts = read_json(path)[0]
    for changes in ({"corrupted": [{}]}, {"models": {"a": {}}}, {"data": {**facts["data"], "labels": "x"}}):
        write_json(path, {**facts, **changes})
        with pytest.raises(Failure, match=r"the run .* cannot be read: .*; run the same command again|is not complete"):
            read(out)
