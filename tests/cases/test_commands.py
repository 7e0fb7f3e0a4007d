"""Commands as they are typed: own models with own weights beside each other, and what `train` and `harden` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cli.commands import AUDIT, done, refused
from steadygrad import data, models
from steadygrad.cli.named_models import load_named
from steadygrad.data.data_plan import DataPlan
from steadygrad.models.model_plan import ModelPlan

DATA = DataPlan(data="digits")
NETS = """
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
"""
SMALL = ("--epochs", "1", "--limit", "100", "--set", "batch_size=50")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with modules of a user and weights for them: class a wins by `a`, class b by `b`."""
    monkeypatch.chdir(tmp_path)
    name = f"own_{abs(hash(tmp_path))}"
    Path(f"{name}.py").write_text(NETS)
    for file, winner in (("a", 1), ("b", 2)):
        bias = torch.zeros(10)
        bias[winner] = 9.0
        save_file({"1.weight": torch.zeros(10, 64), "1.bias": bias}, f"{file}.safetensors")
    return Path(name)


def _winners(models_: list[str], weights: list[str] | None = None, **how: bool) -> dict[str, int]:
    """Which class each model gives to everything."""
    named, _, test = load_named(models_, weights, DATA, ModelPlan(), **how)
    found = {name: model(test.batch(slice(0, 4))[0]).argmax(1) for name, model in named.items()}
    assert all(len(set(classes.tolist())) == 1 for classes in found.values())
    return {name: int(classes[0]) for name, classes in found.items()}


@pytest.mark.parametrize(
    ("line", "weights", "found"),
    [
        ("{nets}:make@a.safetensors", None, {"{nets}:make": 1}),
        ("{nets}:make@./b.safetensors", None, {"{nets}:make": 2}),
        ("{nets}:make", "b.safetensors", {"{nets}:make": 2}),
        ("{nets}:make@a.safetensors {nets}:make@b.safetensors", None, {"a": 1, "b": 2}),
        ("x={nets}:make@a.safetensors y={nets}:make@b.safetensors", None, {"x": 1, "y": 2}),
        ("x={nets}:make y={nets}:make", "b.safetensors a.safetensors", {"x": 2, "y": 1}),
        ("x={nets}:make@{here}/a.safetensors", None, {"x": 1}),
    ],
)
def test_own_models_with_own_weights(line: str, weights: str | None, found: dict[str, int], work: Path) -> None:
    words = line.format(nets=work, here=Path.cwd()).split()
    wanted = {name.format(nets=work): winner for name, winner in found.items()}
    assert _winners(words, weights.split() if weights else None) == wanted


@pytest.mark.parametrize(
    ("line", "weights", "said"),
    [
        ("{nets}:make@none.safetensors", None, "no weights file none.safetensors"),
        ("{nets}:make@", None, "is not MODEL@WEIGHTS"),
        ("@a.safetensors", None, "is not MODEL@WEIGHTS"),
        ("{nets}:make@a.safetensors", "b.safetensors", "names its weights: leave out the weights b.safetensors"),
        ("x={nets}:make y={nets}:make", "a.safetensors", "once for each model, in their order: got 1 for 2 models"),
        ("{nets}:make", "a.safetensors b.safetensors", "got 2 for 1 models"),
        ("{nets}:make@a.safetensors {nets}:wide@a.safetensors", None, "a.safetensors"),
        ("{nets}:make@a.safetensors {nets}:make@a.safetensors", None, "two models are called 'a'"),
        ("a.safetensors@b.safetensors", None, "holds its own weights"),
    ],
)
def test_weights_that_are_not_to_be_had(line: str, weights: str | None, said: str, work: Path) -> None:
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        _winners(line.format(nets=work).split(), weights.split() if weights else None)


def test_in_python_too(work: Path) -> None:
    model = models.load(f"{work}:make@b.safetensors", data=data.load("digits", "test"))
    assert model.architecture == {"name": f"{work}:make"}
    assert model(torch.rand(1, 1, 8, 8)).argmax() == 2


@pytest.fixture
def run(work: Path) -> Path:
    """A run folder that `train` wrote from a module of the user."""
    done("train", *SMALL, "--model", f"{work}:wide", "--out", "run")
    return Path("run")


def test_a_run_of_an_own_module_is_loaded_where_the_command_names_it(work: Path, run: Path) -> None:
    named, _, test = load_named([f"other={work}:wide@run", "run"], None, DATA, ModelPlan())
    x = test.batch(slice(0, 4))[0]
    assert torch.equal(named["other"](x), named["run"](x))
    assert isinstance(named["run"].module, nn.Sequential)
    trusted, _, _ = load_named(["run"], None, DATA, ModelPlan(), trust=True)
    assert torch.equal(trusted[f"{work}:wide"](x), named["run"](x))


def test_its_code_is_not_imported_unasked(work: Path, run: Path) -> None:
    import sys

    del sys.modules[str(work)]
    Path(f"{work}.py").write_text("open('imported', 'w').close()\n")
    with pytest.raises(ValueError, match=rf"{work}:wide, whose code is imported only if you say so.* {work}:wide@run"):
        load_named(["run"], None, DATA, ModelPlan())
    assert not Path("imported").exists()


def test_other_code_by_now_is_said(work: Path, run: Path) -> None:
    import importlib
    import sys

    Path(f"{work}.py").write_text(NETS.replace("nn.ReLU()", "nn.Tanh()"))
    del sys.modules[str(work)]
    importlib.invalidate_caches()
    message = refused(2, "audit", "run", "--trust", *AUDIT)
    assert f"the code of {work}:wide is not what it was when run was made: write {work}:wide@run" in message
    assert len(load_named([f"{work}:wide@run"], None, DATA, ModelPlan())[0]) == 1


@pytest.mark.slow
def test_own_models_beside_what_harden_wrote(work: Path) -> None:
    line = ("--recipe", "plain", *SMALL, *AUDIT, "--validation", "0.2")
    done("harden", f"{work}:make@a.safetensors", *line, "--out", "hard")
    models_ = (f"a={work}:make@a.safetensors", f"b={work}:make@b.safetensors", "hard")
    found = json.loads(done("audit", *models_, *AUDIT, "--json").out)
    assert [row["name"] for row in found["models"]] == ["a", "b", "hard"]
    assert [row["file"] for row in found["models"]] == [*(text[2:] for text in models_[:2]), "hard"]
    before, after = (found["models"][i]["weights"] for i in (0, 2))
    assert before != after


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("audit none --norm LINF", "'linf'"),
        ("audit none --norm L2", "'l2'"),
        ("audit none --suite STANDARD", "'standard'"),
        ("audit none --suite Fast", "'fast'"),
        ("audit none --attack PGD", "'pgd'"),
        ("audit none --attack Pgd:steps=3", "'pgd'"),
        ("audit none --attack pgd:Steps=3", "'steps'"),
        ("audit none --attribution Saliency", "'saliency'"),
        ("audit none --data MNIST", "'mnist'"),
        ("audit none --data Digits", "'digits'"),
        ("audit LeNet", "'lenet'"),
        ("train --model ResNet18", "'resnet18'"),
        ("train --model DIGITS_CNN", "'digits_cnn'"),
        ("train --defense TRADES:eps=0.1", "'trades'"),
        ("train PGD", "'pgd'"),
        ("train --set LR=1", "'lr'"),
        ("harden none --recipe TRADES", "'trades'"),
        ("reproduce Ross2018", "'ross2018'"),
        ("list Attacks", "'attacks'"),
        ("list MODELS", "'models'"),
    ],
)
def test_a_name_in_capitals_is_told_the_near_one(line: str, near: str) -> None:
    assert f"did you mean {near}" in refused(2, *line.split())


@pytest.mark.parametrize("signs", ["ascii", "cp1252", "utf-8"])
def test_a_stream_that_cannot_hold_a_sign_gets_another(signs: str) -> None:
    import os
    import subprocess
    import sys

    import steadygrad

    environment = {**os.environ, "PYTHONIOENCODING": signs, "PYTHONPATH": str(Path(steadygrad.__file__).parents[1])}
    for line in (["audit", "--help"], ["list", "measures"]):
        run = subprocess.run([sys.executable, "-m", "steadygrad", *line], capture_output=True, env=environment)
        assert run.returncode == 0, run.stderr
