"""Inputs that are normalized otherwise than in the training: refused, or pointed at where it may be so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import steadygrad as sg
from cli.commands import call
from steadygrad.attacks import FGSM
from steadygrad.audit.suspicions import at_chance, reordered, unlike_training
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.measuring.measures.first_norm import FirstNorm, shift
from steadygrad.measuring.runner import Runner

QUICK: dict[str, Any] = {"attacks": [FGSM()], "checked": 12, "mapped": 4, "gallery": 0, "attributions": "saliency"}
THREE = (0.485, 0.456, 0.406)


# A mean of other channels


@pytest.mark.parametrize(
    ("shape", "mean", "std"),
    [
        ((1, 4, 4), THREE, 0.5),
        ((1, 4, 4), 0.5, THREE),
        ((4, 4, 4), THREE, THREE),
        ((16,), THREE, 0.5),
        ((2, 8), THREE, 0.5),
        ((1, 2, 2, 4), (0.5, 0.5), 0.5),
    ],
)
def test_a_mean_of_other_channels_is_refused(shape: tuple[int, ...], mean: Any, std: Any) -> None:
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(UsageError, match=r"mean and std have .* values, and inputs of shape"):
        Classifier(net, mean=mean, std=std)(torch.rand(2, *shape))
    with pytest.raises(UsageError, match=r"mean and std have .* values, and inputs of shape"):
        Classifier(net, mean=mean, std=std, input_shape=shape)


@pytest.mark.parametrize("shape", [(3, 4, 4), (3,), (3, 8), (3, 2, 2, 2)])
@pytest.mark.parametrize("mean", [0.5, [0.5], THREE])
def test_a_mean_of_these_channels_is_taken(shape: tuple[int, ...], mean: Any) -> None:
    x = torch.rand(2, *shape)
    found = Classifier(nn.Flatten(), mean=mean, std=[0.5, 0.25, 2.0], input_shape=shape)(x)
    for channel in range(3):
        middle = mean if isinstance(mean, float) else mean[channel if len(mean) == 3 else 0]
        expected = (x[:, channel] - middle) / [0.5, 0.25, 2.0][channel]
        part = found.view(2, 3, -1)[:, channel]
        assert torch.allclose(part, expected.reshape(2, -1), atol=1e-6)


# A network with batch normalization that was trained on normalized inputs

MEAN, STD = 0.3, 0.15


def bright_rows(count: int = 240, seed: int = 0) -> Dataset:
    """Images with one bright row per class, and a mean and spread of the pixels that are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    x = 0.25 + 0.12 * torch.randn(count, 1, 6, 6, generator=generator)
    x[torch.arange(count), :, labels] += 0.3
    ids = tuple(f"{seed}/{i}" for i in range(count))
    return Dataset(x.clamp(0, 1), labels, ("a", "b", "c", "d"), ids, name="rows")


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
        )  # fmt: skip
        model = Classifier(net, mean=MEAN, std=STD, classes=["a", "b", "c", "d"])
        settings = sg.FitSettings(epochs=8, batch_size=32, lr=5e-3)
        return sg.fit(model, sg.defenses.Plain(), bright_rows(), settings=settings).classifier.module


def by_hand(net: nn.Module, data: Dataset, mean: float, std: float) -> tuple[float, float]:
    """What `shift` says, from all activations at once."""
    with torch.no_grad():
        x = net[0]((data.tensors()[0] - mean) / std).double()
    norm = net[1]
    z = (x - norm.running_mean.double()[:, None, None]) / (norm.running_var.double()[:, None, None] + norm.eps).sqrt()
    z = z.transpose(0, 1).flatten(1)
    return float(np.median(z.mean(1).abs())), float(np.median(z.std(1, correction=0)))


WAYS = {
    "as in training": (MEAN, STD, False),
    "never": (0.0, 1.0, True),
    "of another range": (MEAN * 255, STD * 255, True),
}


@pytest.mark.parametrize("way", WAYS)
def test_activations_say_whether_inputs_are_normalized(trained: nn.Module, way: str) -> None:
    mean, std, suspicious = WAYS[way]
    data = bright_rows(80, seed=1)
    table = Runner({"m": Classifier(trained, mean=mean, std=std)}, data).run(FirstNorm(), "m")
    assert shift(table) == pytest.approx(by_hand(trained, data, mean, std), rel=1e-4)
    assert bool(unlike_training(table)) == suspicious


def test_without_batch_normalization_nothing_is_said() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    table = Runner({"m": net}, bright_rows(40)).run(FirstNorm(), "m")
    assert np.isnan(shift(table)).all()
    assert unlike_training(table) == ""


def test_an_audit_points_at_inputs_that_were_never_normalized(trained: nn.Module, tmp_path: Path) -> None:
    data = bright_rows(48, seed=1)
    right, wrong = (Classifier(trained, mean=m, std=s, name=n) for m, s, n in ((MEAN, STD, "right"), (0, 1, "wrong")))
    summary = sg.audit([right, wrong], data, sg.linf(0.02), out=tmp_path / "run", **QUICK).summary
    abouts = [[found["about"] for found in model["findings"]] for model in summary["models"]]
    assert abouts[0] == []
    assert "normalization" in abouts[1]
    page = sg.report.write(tmp_path / "run").read_text(encoding="utf-8")
    assert "unlike its training" in page


# Accuracy at chance, and classes in another order


@pytest.mark.parametrize(
    ("right", "count", "classes", "word"),
    [
        (10, 100, 10, "is not shown to be above"),
        (14, 100, 10, "is not shown to be above"),
        (0, 100, 10, "is below"),
        (30, 100, 10, ""),
        (1, 100, 1000, ""),
        (0, 100, 1000, "is not shown to be above"),
        (55, 100, 2, "is not shown to be above"),
        (70, 100, 2, ""),
        (20, 100, 2, "is below"),
        (3, 4, 2, "is not shown to be above"),
    ],
)
def test_accuracy_at_chance_is_pointed_at(right: int, count: int, classes: int, word: str) -> None:
    text = at_chance(np.arange(count) < right, classes)
    assert word in text
    assert bool(text) == bool(word)


ORDERS = {"swapped": [1, 0, 2, 3], "turned": [1, 2, 3, 0], "the same": [0, 1, 2, 3]}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_another_order_of_the_classes_is_pointed_at(order: str, noise: float) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 200)
    predictions = np.array(ORDERS[order])[labels]
    predictions = np.where(generator.random(200) < noise, generator.integers(0, 4, 200), predictions)
    text = reordered(labels, predictions, ["a", "b", "c", "d"])
    assert bool(text) == (order != "the same")
    if text:
        assert "a is predicted as b" in text


@pytest.mark.parametrize("count", [4, 20, 200])
def test_guesses_are_no_other_order(count: int) -> None:
    for seed in range(30):
        generator = np.random.default_rng(seed)
        labels, guesses = generator.integers(0, 10, (2, count))
        assert reordered(labels, guesses, list(map(str, range(10)))) == ""
        assert reordered(labels, np.zeros_like(labels), list(map(str, range(10)))) == ""


class Rows(nn.Module):
    """The brightest row, as class 0 to 3 in another order."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.order, self.scale = order, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.mean((1, 3))[:, self.order]


def test_a_module_without_names_in_another_order_is_pointed_at(tmp_path: Path) -> None:
    data = bright_rows(60)
    [entry] = sg.audit(Rows([1, 2, 3, 0]), data, sg.linf(0.02), **QUICK).summary["models"]
    right = float(((data.tensors()[0].mean((1, 3))[:, :4].argmax(1) - 1) % 4 == data.labels).float().mean())
    assert entry["clean"]["value"] == pytest.approx(right)
    found = {row["about"]: row for row in entry["findings"]}
    assert {"accuracy", "class order"} <= set(found)
    assert all(found[about]["warning"] for about in ("accuracy", "class order"))
    assert "a is predicted as d" in found["class order"]["text"]


# The commands

NET = """
import torch, steadygrad as sg
from torch import nn

class Near(nn.Module):
    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(torch.tensor([-1.0, 1.0]))
    def forward(self, x):
        return -(x.flatten(1).mean(1, keepdim=True) - self.levels).square()

def make(): return Near()
def own(): return sg.Classifier(Near(), mean=0.25, std=0.25)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Arrays of levels around 0.1 and 0.4: right with mean 0.25, all of class 1 without."""
    generator = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = (0.1 + 0.3 * y)[:, None, None, None] + generator.uniform(-0.08, 0.08, (60, 3, 4, 4))
    np.savez(tmp_path / "levels.npz", x=x.clip(0, 1).astype("float32"), y=y)
    np.savez(tmp_path / "bytes.npz", x=(255 * x.clip(0, 1)).round().astype("uint8"), y=y)
    (tmp_path / "normalization_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _clean(*arguments: str) -> float:
    common = ("--attack", "fgsm", "--checked", "4", "--gallery", "0", "--json")
    done = call("audit", *arguments, *common)
    assert done.code == 0, done.err
    return float(json.loads(done.out)["models"][0]["clean"]["value"])


TAKEN = {
    "one number": (("--mean", "0.25", "--std", "0.25"), 1.0),
    "a fraction": (("--mean", "1/4"), 1.0),
    "one for each channel": (("--mean", "0.25,0.25,0.25", "--std", "0.2,0.3,0.25"), 1.0),
    "none": ((), 0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TAKEN)
def test_the_audit_takes_mean_and_std(folder: Path, kind: str) -> None:
    flags, clean = TAKEN[kind]
    assert _clean("normalization_net:make", "--data", "./levels.npz", *flags, "--eps", "0.01") == clean


@pytest.mark.slow
def test_bounds_scale_pixels_for_a_module_that_takes_bytes(folder: Path) -> None:
    flags = ("--data", "./bytes.npz", "--bounds", "0,255", "--mean", "63.75", "--std", "63.75", "--eps", "2")
    assert _clean("normalization_net:make", *flags) == 1.0


@pytest.mark.slow
def test_a_table_and_its_range_are_trained_and_audited(folder: Path) -> None:
    generator = np.random.default_rng(0)
    rows = [f"{v - 2:.3f},{-v:.3f},{'low' if v < 2 else 'high'}" for v in generator.uniform(0, 4, 60)]
    (folder / "table.csv").write_text("\n".join(["a,b,label", *rows]))
    plan = ("--data", "./table.csv", "--bounds", "-5,5")
    done = call(
        "train", "--model", "mlp:hidden=[8]", *plan, "--epochs", "30", "--set", "lr=0.05", "--out", "t", "--json"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["test_accuracy"]["value"] > 0.8
    assert _clean("t", *plan, "--eps", "0.1") == json.loads(done.out)["test_accuracy"]["value"]
    assert sg.models.load("t").bounds == (-5, 5)
    done = call(
        "harden", "t", *plan, "--defense", "plain", "--epochs", "1", "--eps", "0.1", "--attack", "fgsm", "--json"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["threat"]["bounds"] == [-5, 5]


REFUSED = {
    "other channels": (("normalization_net:make", "--mean", "0.1,0.2"), "have 2 values, and inputs of shape (3, 4, 4)"),
    "no numbers": (("normalization_net:make", "--mean", "imagnet"), "mean must be numbers such as 0.5"),
    "no spread": (("normalization_net:make", "--std", "0"), "std must be positive"),
    "its own": (("normalization_net:own", "--mean", "0.5"), "says its own mean 0.25"),
    "one bound": (("normalization_net:make", "--bounds", "1"), "bounds must be the smallest and largest value"),
    "turned bounds": (("normalization_net:make", "--bounds", "1,0"), "low < high"),
    "a radius in levels": (("normalization_net:make", "--eps", "8"), "did you mean 8/255?"),
    "narrow bounds": (("normalization_net:make", "--bounds", "0,0.2"), "must lie within [0, 0.2]"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_is_refused(folder: Path, kind: str) -> None:
    arguments, words = REFUSED[kind]
    for command in (("audit",), ("harden", "--defense", "plain")):
        done = call(command[0], *arguments, *command[1:], "--data", "./levels.npz")
        assert done.code == 2, done.err
        assert words in " ".join(done.err.split())


def test_the_preset_is_in_the_units_of_the_data() -> None:
    data = dataclasses.replace(bright_rows(8), images=torch.rand(8, 3, 6, 6))
    model = sg.models.load("mlp:hidden=[4]", data=data.within((0, 255)), mean="imagenet")
    assert model.mean.tolist() == pytest.approx([255 * m for m in THREE])
    assert model.std.tolist() == pytest.approx([255 * s for s in (0.229, 0.224, 0.225)])
