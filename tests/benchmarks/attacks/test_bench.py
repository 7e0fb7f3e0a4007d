"""The whole benchmark: files, refusals, absent libraries, and the command."""

from __future__ import annotations

import json
import signal
import time
import types
from pathlib import Path

import pytest

from benchmarks.attacks import Pace, bench_attacks, libraries
from benchmarks.attacks.__main__ import main
from benchmarks.attacks.subject import subject
from benchmarks.attacks.tasks import Contender, tasks
from cli.commands import done, refused
from steadygrad.errors import Failure, UsageError
from steadygrad.files import read_json

pytestmark = pytest.mark.slow

QUICK = {"samples": 8, "against": [], "only": ["DeepFool l2", "PGD"], "pace": Pace(laps=1)}


def test_a_run_writes_its_results_and_is_not_done_twice(model_file, tmp_path):
    found = bench_attacks("digits", model=str(model_file), out=tmp_path, note="alone", **QUICK)
    assert read_json(tmp_path / "attacks.json")[0] == found
    assert [row["task"] for row in found["rows"]] == ["DeepFool l2", "DeepFool l2", "PGD"]
    assert found["versions"].keys() == {"steadygrad"}
    assert found["machine"]["threads"] >= 1
    assert (found["seed"], found["note"], found["samples"]) == (0, "alone", 8)
    assert len((tmp_path / "attacks.csv").read_text().splitlines()) == 4
    assert len((tmp_path / "distances.csv").read_text().splitlines()) == 1 + 3 * 8
    assert (tmp_path / "attacks.png").stat().st_size > 10_000
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    again = bench_attacks("digits", model=str(model_file), out=tmp_path, **QUICK)
    assert again["rows"] == found["rows"]
    assert times == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"against": ["folbox"]}, "no library 'folbox'; did you mean 'foolbox'"),
        ({"only": ["PDG"]}, "no task 'PDG'; did you mean 'PGD'"),
        ({"samples": 1}, "samples must be at least 2"),
        ({"eps": 1.0}, "eps within"),
        ({"model": None, "data": "cifar10"}, "give --model for cifar10"),
    ],
)
def test_what_cannot_be_done_is_refused(changed, words, model_file, tmp_path, data_root):
    settings = {"data": "digits", "model": str(model_file), **QUICK, **changed}
    with pytest.raises(UsageError, match=words):
        bench_attacks(**settings, out=tmp_path)


def test_a_folder_of_another_benchmark_is_refused(model_file, tmp_path):
    bench_attacks("digits", model=str(model_file), out=tmp_path, **QUICK)
    with pytest.raises(UsageError, match="another configuration"):
        bench_attacks("digits", model=str(model_file), out=tmp_path, **{**QUICK, "samples": 9})


def test_too_few_images_are_a_failure(model_file, tmp_path):
    with pytest.raises(Failure, match="give --samples less"):
        subject("digits", str(model_file), 1000, out=tmp_path, seed=0, device="cpu")


def test_the_images_are_the_first_that_are_classified_correctly(small):
    from steadygrad.data import load

    x, y = load("digits", "test").tensors()
    right = (small.model(x).argmax(1) == y).nonzero().squeeze(1)
    assert small.x.equal(x[right[:20]])
    assert small.y.equal(y[right[:20]])
    assert small.accuracy.value == len(right) / len(x)
    assert not (small.targets() == small.y).any()


def test_a_library_that_is_absent_is_named(model_file, tmp_path, monkeypatch):
    ghost = libraries.Library("no-such-distribution", "nowhere", libraries.art.enter)
    broken = libraries.Library("pytest", "no.such.module", libraries.art.enter)
    monkeypatch.setattr(libraries, "LIBRARIES", {"ghost": ghost, "broken": broken})
    found = bench_attacks("digits", model=str(model_file), out=tmp_path, **{**QUICK, "against": ["ghost", "broken"]})
    assert found["absent"]["ghost"] == "not installed"
    assert "cannot be imported: ModuleNotFoundError" in found["absent"]["broken"]
    assert {row["library"] for row in found["rows"]} == {"steadygrad"}


@pytest.mark.parametrize("name", list(libraries.LIBRARIES))
def test_a_library_that_fails_in_every_attack_is_a_row_each(name, model_file, tmp_path, monkeypatch):
    # As where it is installed but broken: what it enters cannot run.
    monkeypatch.setattr(getattr(libraries, name), "importlib", types.SimpleNamespace(import_module=_gone))
    monkeypatch.setattr(libraries, "missing", lambda name: None)
    count = len(libraries.LIBRARIES[name].enter(tasks(0.1, (1, 8, 8)), (1, 8, 8), 10))
    found = bench_attacks("digits", model=str(model_file), out=tmp_path, samples=4, against=[name], only=["PGD"])
    assert count > 3
    failed = [row for row in found["rows"] if row["library"] == name]
    assert [row["error"] for row in failed] == ["ModuleNotFoundError: gone"]


def _gone(*_):
    raise ModuleNotFoundError("gone")


def test_a_slow_attack_is_given_up_and_tried_again(model_file, tmp_path, monkeypatch):
    slow = Contender(tasks(0.1, (1, 8, 8))["PGD"], "sleepy", "slow", lambda model, x, *_: nap(x), 1)
    monkeypatch.setattr(libraries, "LIBRARIES", {"sleepy": libraries.Library("pytest", "pytest", lambda *_: [slow])})
    quick = {**QUICK, "against": ["sleepy"], "only": ["PGD"], "model": str(model_file), "out": tmp_path}
    naps = iter([0.0, 5.0, 0.0, 0.0])

    def nap(x):
        time.sleep(next(naps))
        return x

    found = bench_attacks("digits", **quick, limit=1.0)
    assert found["rows"][1]["error"] == "TimeoutError: not done within 1 s"
    assert found["rows"][0]["error"] is None
    assert bench_attacks("digits", **quick)["rows"][1]["error"] is None
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_command(model_file, tmp_path):
    line = ["--data", "digits", "--model", model_file, "--samples", "4", "--libraries", "none"]
    line += ["--task", "PGD", "--laps", "1", "--out", tmp_path / "run"]
    result = done(*line, by=main)
    assert "steadygrad" in result.out
    assert "model accuracy" in result.out
    assert str(tmp_path / "run" / "attacks.png") in result.out
    found = json.loads(done(*line, "--json", by=main).out)
    assert found["rows"][0]["task"] == "PGD"
    assert found["out"] == str(tmp_path / "run")


def test_the_command_refuses_in_words(tmp_path):
    assert "no library 'folbox'; did you mean 'foolbox'" in refused(2, "--libraries", "folbox", by=main)
    assert "Usage: python -m benchmarks.attacks [OPTIONS]" in refused(2, "--librarys", "foolbox", by=main)
    assert "Usage: python -m benchmarks.attacks [OPTIONS]" in done("--help", by=main).out


def test_it_trains_its_own_model(tmp_path):
    found = bench_attacks("digits", out=tmp_path, **QUICK)
    assert found["accuracy"]["value"] >= 0.95
    assert Path(tmp_path / "model" / "model.safetensors").is_file()
