"""A module with one logit for two classes, where a model is named: on the command line and by `sg.models.load`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import steadygrad as sg
from cli.commands import done, refused


def run(*line: str) -> str:
    return done(*line).out


def fails(*line: str) -> str:
    return refused(2, *line)


NETS = """
import torch
import steadygrad as sg

def one():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 1))
    torch.nn.init.constant_(net[1].weight, 0.5)
    torch.nn.init.constant_(net[1].bias, -4.0)
    return net

def two():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))

def sigmoid():
    return torch.nn.Sequential(one(), torch.nn.Sigmoid())

def wrapped():
    return sg.Classifier(one())

def said():
    return sg.Classifier(one(), binary=True, classes=["dark", "light"])
"""
"""`one` is positive where the mean of 16 pixels is above a half."""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "nets_of_one", raising=False)
    (tmp_path / "nets_of_one.py").write_text(NETS)
    means = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9] * 2, dtype=np.float32)
    # No two are the same, and each keeps its mean.
    ramp = np.linspace(-0.04, 0.04, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    images = means[:, None, None, None] + ramp * np.linspace(0.5, 1, 16, dtype=np.float32)[:, None, None, None]
    # One of eight is labelled against the model.
    labels = (means > 0.5).astype(np.int64)
    labels[[0, 8]] = 1
    np.savez(tmp_path / "two.npz", x=images, y=labels, classes=["dark", "light"])
    np.savez(tmp_path / "three.npz", x=images, y=np.arange(16) % 3)
    return tmp_path


FAST = ("--split", "all", "--checked", "4", "--attack", "fgsm", "--eps", "0.05", "--quiet", "--json")


def test_it_is_audited_as_two_classes(files: Path) -> None:
    found = json.loads(run("audit", "nets_of_one:one", "--binary", "--data", "two.npz", *FAST))
    assert found["models"][0]["clean"]["value"] == 14 / 16


@pytest.mark.parametrize("make", ["one", "wrapped", "said"])
def test_it_is_loaded_as_two_classes(files: Path, make: str) -> None:
    model = sg.models.load(f"nets_of_one:{make}", binary=True, input_shape=(1, 4, 4))
    z = 0.5 * 16 * 0.7 - 4
    wanted = torch.tensor([[1, 0]]) + torch.tensor([[-1, 1]]) * torch.sigmoid(torch.tensor(z))
    torch.testing.assert_close(model(torch.full((1, 1, 4, 4), 0.7)).softmax(1), wanted)


def test_names_give_the_order_of_the_two(files: Path) -> None:
    (files / "names.txt").write_text("light\ndark\n")
    line = ("audit", "nets_of_one:one", "--binary", "--classes", "names.txt", "--data", "two.npz", *FAST)
    assert json.loads(run(*line))["models"][0]["clean"]["value"] == 2 / 16


@pytest.mark.slow
def test_training_and_hardening_remember_it(files: Path) -> None:
    data = ("--data", "two.npz", "--binary", "--epochs", "1", "--quiet", "--json", "--set", "lr=0.0001")
    done("train", "--model", "nets_of_one:one", *data, "--out", "trained")
    hardened = ("--defense", "input_gradient:weight=1", "--attack", "fgsm", "--eps", "0.05", "--out", "hard")
    done("harden", "nets_of_one:one@trained", *data, *hardened)
    for folder in ("trained", "hard"):
        again = json.loads(run("audit", folder, "--trust", "--data", "two.npz", *FAST, "--out", f"of-{folder}"))
        assert again["models"][0]["clean"]["count"] > 0
        assert sg.models.load("nets_of_one:wrapped", weights=folder).binary


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("nets_of_one:one", "--data", "two.npz"), "one logit of two classes is taken by sg.Classifier(module, bi"),
        (("nets_of_one:one", "--data", "two.npz"), "or with --binary"),
        (("nets_of_one:two", "--data", "two.npz", "--binary"), "must return one logit (N, 1)"),
        (("nets_of_one:sigmoid", "--data", "two.npz", "--binary"), "it ends with a sigmoid"),
        (("nets_of_one:one", "--data", "three.npz", "--binary"), "one logit (binary), which takes two classes, got 3"),
        (("a=nets_of_one:one", "b=nets_of_one:one", "--data", "two.npz", "--binary"), "--binary goes with a single m"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(files: Path, line: tuple[str, ...], message: str) -> None:
    assert message in " ".join(fails("audit", *line, *FAST).split())


def test_an_architecture_has_a_logit_for_each_class(files: Path) -> None:
    with pytest.raises(sg.UsageError, match=r"gives a logit for each class: leave out binary \(--binary\)"):
        sg.models.load("mlp", input_shape=(1, 4, 4), classes=2, binary=True)
    told = fails("train", "--model", "mlp", "--data", "two.npz", "--binary", "--quiet")
    assert "leave out binary" in " ".join(told.split())
