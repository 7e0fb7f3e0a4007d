"""A run that is stopped, however roughly, continues to the same weights."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fits
from steadygrad.data import Dataset
from steadygrad.errors import Failure, UsageError
from steadygrad.training import loop

TESTS = Path(__file__).parents[1]
# Exact equality of whole runs, so each has everything that could go wrong: batch normalization,
# dropout, augmentation, random attacks, a schedule and the choice of the best epoch.
RUNS: dict[str, dict[str, Any]] = {
    "plain": {"optimizer": "sgd", "weight_decay": 1e-3},
    "pgd": {"select": "robust", "robust_eps": 0.1, "warmup": 0.2},
    "input_gradient:weight=0.1": {"select": "accuracy", "clip": 0.5},
    "distillation": {"precision": "fp16"},
}


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize("every", [None, 3])
@pytest.mark.parametrize("defense", RUNS)
def test_a_continued_run_ends_as_an_undisturbed_one(defense: str, every: int | None, tmp_path: Path) -> None:
    whole = fits.run(tmp_path / "whole", defense, **RUNS[defense])
    for stop in (2, 5, 7):  # each in another epoch than the one before it
        with pytest.raises(fits.Stopped), fits.stopped_at(stop):
            fits.run(tmp_path / "parts", defense, checkpoint_steps=every, **RUNS[defense])
    parts = fits.run(tmp_path / "parts", defense, checkpoint_steps=every, **RUNS[defense])
    assert _same(whole.classifier, parts.classifier)
    assert whole.history == parts.history
    for name in ("model.safetensors", "history.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_only_the_steps_that_are_missing_are_taken(tmp_path: Path) -> None:
    with pytest.raises(fits.Stopped), fits.stopped_at(11):
        fits.run(tmp_path, checkpoint_steps=3)
    # 3 epochs of 4 steps: the last checkpoint was written after step 3 of the third, one before the end.
    with pytest.raises(fits.Stopped), fits.stopped_at(0):
        fits.run(tmp_path, checkpoint_steps=3)
    with fits.stopped_at(1):
        assert fits.run(tmp_path, checkpoint_steps=3).epochs_done == 3


def test_a_finished_run_returns_at_once(tmp_path: Path) -> None:
    first = fits.run(tmp_path, "distillation")
    with fits.stopped_at(0):
        again = fits.run(tmp_path, "distillation", tensorboard=True, checkpoint_every=2)
    assert _same(first.classifier, again.classifier)
    assert (again.history, again.best_epoch, again.epochs_done) == (first.history, first.best_epoch, 3)
    (tmp_path / "model.safetensors").unlink()
    fits.run(tmp_path, "distillation")
    assert _same(fits.classifier("norm").load_weights(tmp_path / "model.safetensors"), first.classifier)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 4}, "settings"),
        ({"defense": "pgd"}, "defense"),
        ({"kind": "linear"}, "classifier, model code, starting weights"),
    ],
)
def test_another_configuration_is_refused(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    fits.run(tmp_path, epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=rf"another configuration \(differs in: {named}\)"):
        fits.run(tmp_path, **{"epochs": 1, **changes})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "config.toml").unlink()
    with pytest.raises(UsageError, match=r"checkpoint\.safetensors is from another configuration"):
        fits.run(tmp_path, **{"epochs": 1, **changes})


def test_other_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits.run(tmp_path, epochs=1)
    original = fits.dataset

    def other(count: int = 60, *, seed: int = 0) -> Dataset:
        return original(count, seed=seed + 1)

    monkeypatch.setattr(fits, "dataset", other)
    with pytest.raises(UsageError, match=r"differs in: training data, validation data"):
        fits.run(tmp_path, epochs=1)


def flipped(path: Path, place: int) -> None:
    """Change one bit of a file, at a place counted from its end."""
    data = bytearray(path.read_bytes())
    data[-place] ^= 16
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["cut", "a bit", "both"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = fits.run(None)
    with fits.stopped_at(9), pytest.raises(fits.Stopped):
        fits.run(tmp_path)
    last, before = tmp_path / "checkpoint.safetensors", tmp_path / "checkpoint-before.safetensors"
    assert before.exists()
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:100])
    else:
        flipped(last, 30)
    if damage == "both":
        flipped(before, 30)
    with caplog.at_level(logging.WARNING, "steadygrad"):
        found = fits.run(tmp_path)
    lines = [line for line in caplog.messages if "checkpoint" in line]
    assert "checkpoint.safetensors" in lines[0]
    assert "the one before is taken" in lines[0]
    assert ["training begins anew" in line for line in lines[1:]] == ([True] if damage == "both" else [])
    assert _same(found.classifier, whole.classifier)
    assert found.history == whole.history


@pytest.mark.parametrize("damage", [b"", b"{", None])
def test_damaged_weights_of_a_finished_run_are_written_again(damage: bytes | None, tmp_path: Path) -> None:
    fits.run(tmp_path, epochs=1)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    if damage is None:
        flipped(path, 9)
    else:
        path.write_bytes(damage)
    fits.run(tmp_path, epochs=1)
    assert path.read_bytes() == whole


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        fits.run(tmp_path / "taken")


@pytest.mark.parametrize("every", [None, 1])
def test_weights_that_are_not_finite_never_reach_the_checkpoint(
    every: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop.Loop.update

    def update(self: loop.Loop) -> None:
        original(self)
        if (self.progress.epoch, self.progress.step) == (1, 2):
            with torch.no_grad():
                self.weights[0].fill_(torch.nan)

    monkeypatch.setattr(loop.Loop, "update", update)
    with pytest.raises(Failure, match="no longer finite in epoch 2"):
        fits.run(tmp_path, checkpoint_steps=every)
    monkeypatch.undo()
    assert _same(fits.run(tmp_path).classifier, fits.run().classifier)


def test_ctrl_c_keeps_every_finished_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, count = loop.Loop.step, 0

    def step(self: loop.Loop, *batches: torch.Tensor) -> None:
        nonlocal count
        count += 1
        if count == 6:
            signal.raise_signal(signal.SIGINT)
        original(self, *batches)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "step", step)
        with pytest.raises(KeyboardInterrupt):
            fits.run(tmp_path)
    assert count == 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with fits.stopped_at(6):
        continued = fits.run(tmp_path)
    assert _same(continued.classifier, fits.run().classifier)


def test_a_second_ctrl_c_stops_at_once_and_without_a_folder_the_first_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: loop.Loop, *batches: torch.Tensor) -> None:
        signal.raise_signal(signal.SIGINT)
        if self.folder is not None:
            signal.raise_signal(signal.SIGINT)
        raise AssertionError("the step went on")

    monkeypatch.setattr(loop.Loop, "step", step)
    for out in (tmp_path, None):
        with pytest.raises(KeyboardInterrupt):
            fits.run(out)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _start(out: Path, defense: str, *settings: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])}
    command = [sys.executable, str(TESTS / "fits.py"), str(out), defense, *settings]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(("defense", "times"), [("pgd", 4), ("distillation", 2)])
def test_kill_9_at_any_moment(defense: str, times: int, tmp_path: Path) -> None:
    moments = random.Random(3)
    settings = ["epochs=12", "checkpoint_steps=2", "select=accuracy"]
    kills = 0
    for _ in range(times):
        process = _start(tmp_path / "killed", defense, *settings)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "ready\n"
            time.sleep(moments.uniform(0.2, 0.9))
            process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills >= times / 2, "the runs were too short to be killed"
    process = _start(tmp_path / "killed", defense, *settings)
    with process:
        process.communicate()
    assert process.returncode == 0
    whole = fits.run(tmp_path / "whole", defense, epochs=12, select="accuracy")
    for name in ("model.safetensors", "history.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert _same(fits.classifier("norm").load_weights(tmp_path / "killed" / "model.safetensors"), whole.classifier)
    assert not list((tmp_path / "killed").rglob(".partial*"))
