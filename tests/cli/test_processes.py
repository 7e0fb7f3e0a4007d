"""Under `torchrun`: what trains is shared, what audits is done once, and everything is said once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import steadygrad
from cli.commands import AUDIT, TRAIN, call, done
from steadygrad.cli.common import pick_device

EMPTY = (0, "", "")


@pytest.mark.parametrize(
    "line", ["audit none --engine local", "report none", "list attacks", "harden none", "demo", "reproduce ross2018"]
)
def test_a_second_process_leaves_the_work_to_the_first(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    result = call(*line.split())
    assert (result.code, result.out, result.err) == EMPTY


@pytest.mark.parametrize("line", ["harden none --recipe pgd", "demo", "reproduce ross2018"])
def test_what_trains_and_audits_is_refused(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    result = call(*line.split())
    assert result.code == 2
    assert "trains and audits in one process, and here are 4: run it without torchrun" in result.err


@pytest.mark.parametrize("line", ["train --model lnet", "train --norm l2", "adit"])
def test_a_wrong_command_is_told_once(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        result = call(*line.split())
        assert result.code == 2
        said.append(result.err)
    assert said[0]
    assert not said[1]


@pytest.mark.slow
def test_the_first_process_audits_where_that_is_asked_for(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    result = done("audit", trained, *AUDIT, "--engine", "local", "--out", "run")
    assert "audit works in one process: the other 1 of 2 end at once" in result.err
    assert "report: run/report/index.html" in result.out


@pytest.mark.slow
def test_processes_share_an_audit_and_the_first_one_says_what_was_found(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    line = ("audit", trained, *AUDIT, "--out", "run", "--quiet")
    monkeypatch.setenv("RANK", "1")
    assert done(*line).out == ""
    monkeypatch.setenv("RANK", "0")
    result = done(*line)
    assert "report: run/report/index.html" in result.out
    assert "works in one process" not in result.err


def test_each_process_takes_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank, device in (("0", "cuda:0"), ("1", "cuda:1"), ("2", "cuda:0")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert pick_device("auto") == pick_device("cuda") == device
    assert pick_device("cuda:1") == "cuda:1"
    assert pick_device("cpu") == "cpu"


def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"cuda": True, "mps": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there["cuda"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(there["cuda"]))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there["mps"])
    assert pick_device("auto") == "cuda"
    there["cuda"] = False
    assert pick_device("auto") == "mps"
    there["mps"] = False
    assert pick_device("auto") == "cpu"


@pytest.mark.slow
def test_a_training_by_two_processes_says_everything_once() -> None:
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "steadygrad", *TRAIN]
    environment = {**os.environ, "PYTHONPATH": str(Path(steadygrad.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*line, "--out", "run"], capture_output=True, text=True, env=environment, timeout=200)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("test accuracy") == 1
    assert run.stderr.count("✓ train digits_cnn") == 1
