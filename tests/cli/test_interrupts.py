"""Killed, interrupted or out of disk: what is finished is kept, and the same command ends as if undisturbed."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.commands import AUDIT, Nursery, call, done, lasting, refused, same_weights, times
from steadygrad.audit.audit import read

pytestmark = pytest.mark.slow

# Many small steps with a checkpoint after every other one: many moments to be stopped at.
TRAIN = (
    *("train", "--limit", "300", "--epochs", "6", "--set", "batch_size=16", "--set", "checkpoint_steps=2"),
    *("--defense", "adversarial:eps=0.1,attack=fgsm"),
)
CHECKPOINTS = 6 * 9
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def undisturbed_training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "train"
    done(*TRAIN, "--out", out)
    return out


@pytest.fixture(scope="module")
def undisturbed_audit(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "audit"
    done("audit", trained, *AUDIT, "--out", out)
    return out


def _training_ends_the_same(out: Path, whole: Path, *line: str) -> None:
    done(*(line or (*TRAIN, "--out", str(out))))
    assert same_weights(out / "model.safetensors", whole / "model.safetensors")
    for name in ("model.safetensors", "history.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert not list(out.rglob(".partial*"))


def _audit_ends_the_same(out: Path, whole: Path, trained: Path, *line: str) -> None:
    kept = times(out)
    done(*(line or ("audit", str(trained), *AUDIT, "--out", str(out))))
    assert lasting(out) == lasting(whole)
    assert times(out).keys() == times(whole).keys()
    assert {name: times(out)[name] for name in kept} == kept  # nothing that was done was done again
    mine, theirs = read(out), read(whole)
    assert set(mine.arrays) == set(theirs.arrays)
    assert all(np.array_equal(values, theirs.arrays[name], equal_nan=True) for name, values in mine.arrays.items())
    assert mine.records.frame.equals(theirs.records.frame)
    assert (out / "report" / "index.html").is_file()


def _after_checkpoints(out: Path, count: int, pause: float) -> Callable[[], bool]:
    """A condition that holds a little after so many checkpoints were seen."""
    seen: set[int] = set()

    def reached() -> bool:
        file = out / "checkpoint.safetensors"
        with contextlib.suppress(FileNotFoundError):  # it is being replaced
            seen.add(file.stat().st_mtime_ns)
        if len(seen) < count:
            return False
        time.sleep(pause)
        return True

    return reached


def _after_cells(out: Path, count: int, pause: float) -> Callable[[], bool]:
    """A condition that holds a little after so many cells were written."""

    def reached() -> bool:
        if count and len(times(out)) < count:
            return False
        time.sleep(pause)
        return True

    return reached


@pytest.mark.parametrize("moment", range(10))
def test_train_killed_at_a_random_moment(
    moment: int, nursery: Nursery, undisturbed_training: Path, tmp_path: Path
) -> None:
    drawn, out = random.Random(moment), tmp_path / "run"
    # Not every checkpoint is seen by looking at the file; the first moment is one before any of them.
    when = _after_checkpoints(out, drawn.randrange(CHECKPOINTS // 3) if moment else 0, drawn.uniform(0, 0.02))
    assert nursery.run(*TRAIN, "--out", out, sent=signal.SIGKILL, when=when).code == -signal.SIGKILL
    assert not (out / "model.safetensors").exists()
    _training_ends_the_same(out, undisturbed_training)


@pytest.mark.parametrize("moment", range(10))
def test_audit_killed_at_a_random_moment(
    moment: int, nursery: Nursery, trained: Path, undisturbed_audit: Path, tmp_path: Path
) -> None:
    drawn, out = random.Random(moment), tmp_path / "run"
    # Of the first half: a busy machine may see the cell late, and the audit must not have ended by then.
    cells = drawn.randrange(len(times(undisturbed_audit)) // 2) if moment else 0
    when = _after_cells(out, cells, drawn.uniform(0, 0.02))
    assert nursery.run("audit", trained, *AUDIT, "--out", out, sent=signal.SIGKILL, when=when).code == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    _audit_ends_the_same(out, undisturbed_audit, trained)


@pytest.mark.parametrize("missing", [1, 0])
def test_audit_killed_late(
    missing: int, nursery: Nursery, trained: Path, undisturbed_audit: Path, tmp_path: Path
) -> None:
    out, shards = tmp_path / "run", len(times(undisturbed_audit)) - missing
    ended = nursery.run("audit", trained, *AUDIT, "--out", out, dies_after=(".parquet", shards))
    assert ended.code == -signal.SIGKILL
    assert len(times(out)) == shards
    assert not (out / "summary.json").exists()
    _audit_ends_the_same(out, undisturbed_audit, trained)


def _printed(err: str) -> list[str]:
    """The command that an interrupted one prints to continue."""
    assert "Traceback" not in err
    assert "steadygrad: interrupted; what is finished is kept. Continue with:" in err
    last = shlex.split(err.splitlines()[-1])
    assert last[0] == "steadygrad"
    return last[1:]


ENDS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
"""What asks a command to end, and its exit code then."""


@pytest.mark.parametrize(("checkpoints", "sent", "code"), [(1, *ENDS[0]), (9, *ENDS[1])])
def test_train_interrupted_by_a_signal(
    checkpoints: int, sent: signal.Signals, code: int, nursery: Nursery, undisturbed_training: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a run"  # with a space, which the printed command must quote
    when = _after_checkpoints(out, checkpoints, 0.01)
    result = nursery.run(*TRAIN, "--out", out, sent=sent, when=when)
    assert (result.code, result.out) == (code, "")
    assert (out / "checkpoint.safetensors").exists()
    assert not (out / "model.safetensors").exists()
    line = _printed(result.err)
    assert line == [*TRAIN, "--out", str(out)]
    _training_ends_the_same(out, undisturbed_training, *line)


@pytest.mark.parametrize(("cells", "sent", "code"), [(1, *ENDS[0]), (5, *ENDS[1])])
def test_audit_interrupted_by_a_signal(
    cells: int,
    sent: signal.Signals,
    code: int,
    nursery: Nursery,
    trained: Path,
    undisturbed_audit: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "a run"
    line = ("audit", str(trained), *AUDIT, "--out", str(out))
    result = nursery.run(*line, sent=sent, when=_after_cells(out, cells, 0.005))
    assert (result.code, result.out) == (code, "")
    assert len(times(out)) >= cells
    assert not (out / "summary.json").exists()
    assert _printed(result.err) == list(line)
    _audit_ends_the_same(out, undisturbed_audit, trained, *_printed(result.err))


def test_ctrl_c_in_this_process_prints_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(kind: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("steadygrad.cli.listing._rows", interrupted)
    assert _printed(refused(130, "list", "attacks", "--json")) == ["list", "attacks", "--json"]


@pytest.mark.parametrize("cells", [0, 3, 9])
def test_audit_on_a_disk_that_gets_full(
    cells: int, trained: Path, undisturbed_audit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, written = tmp_path / "run", os.replace, []

    def replace(source: Any, target: Any) -> None:
        written.extend([target] if str(target).endswith(".parquet") else [])
        if len(written) > cells:
            raise FULL
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        message = refused(1, "audit", trained, *AUDIT, "--out", out)
    assert f"cannot write {written[-1]}: No space left on device; free space or choose another --out" in message
    assert len(times(out)) == cells
    _audit_ends_the_same(out, undisturbed_audit, trained)


def test_train_on_a_disk_that_gets_full(
    undisturbed_training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    out, real, written = tmp_path / "run", safetensors.torch.save_file, []

    def save(tensors: Any, path: Path, metadata: Any) -> None:
        written.append(path)
        if len(written) == 5:
            # The words of the real thing.
            raise safetensors.SafetensorError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            )
        real(tensors, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", save)
        message = refused(1, *TRAIN, "--out", out)
    assert f"cannot write {out / 'checkpoint.safetensors'}" in message
    assert "No space left on device" in message
    assert "free space or choose another --out" in message
    assert (out / "checkpoint.safetensors").stat().st_size
    _training_ends_the_same(out, undisturbed_training)


def test_a_file_that_cannot_grow_is_a_real_full_disk(
    nursery: Nursery, undisturbed_training: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = nursery.run(*TRAIN, "--out", out, limit=100_000)
    assert result.code == 1
    assert "Traceback" not in result.err
    assert f"cannot write {out / 'checkpoint.safetensors'}: " in result.err
    assert "File too large" in result.err
    _training_ends_the_same(out, undisturbed_training)


def test_the_report_is_written_again_where_it_is_missing(trained: Path, undisturbed_audit: Path) -> None:
    page = undisturbed_audit / "report" / "index.html"
    before = page.read_bytes()
    page.unlink()
    assert call("audit", trained, *AUDIT, "--out", undisturbed_audit).code == 0
    assert page.read_bytes() == before
