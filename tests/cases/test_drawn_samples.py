"""Data that lie class after class: whoever looks at some of the samples looks at all classes, and says how many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom
from torch import nn

import steadygrad as sg
from steadygrad.attacks import FGSM
from steadygrad.attributions import Saliency
from steadygrad.audit.checks.verdict import LEAST, Check, too_few, verdict
from steadygrad.audit.schema import Summary
from steadygrad.cli import main
from steadygrad.data import Dataset
from steadygrad.measuring.statistics import critical_count
from steadygrad.report.sections import headline_section
from steadygrad.training.train_plan import TrainPlan

THREAT = sg.linf(0.01)
QUICK: dict[str, Any] = {"attacks": [FGSM()], "attributions": (Saliency(),), "gallery": 0}


def data_of(*sizes: int, seed: int = 0) -> Dataset:
    """Bright and dark images of 4 x 4, all of class 0 first."""
    draws = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    levels = (labels + 0.5) / len(sizes)
    pixels = (levels[:, None, None] + draws.normal(0, 0.02, (len(labels), 4, 4))).clip(0, 1)
    return sg.data.from_arrays(pixels.astype(np.float32), labels, len(sizes))


class Constant(nn.Module):
    """Says class 0 whatever it sees, with a gradient."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = nn.Linear(16, classes)
        with torch.no_grad():
            self.net.weight.mul_(1e-3)
            self.net.bias.copy_(torch.tensor([5.0] + [0.0] * (classes - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x.flatten(1))
        return logits


class Brighter(Constant):
    """Tells bright images from dark ones, by their mean."""

    def __init__(self) -> None:
        super().__init__(2)
        with torch.no_grad():
            self.net.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 16))
            self.net.bias.copy_(torch.tensor([8.0, -8.0]))


@pytest.mark.parametrize("sizes", [(60, 60), (40, 40, 40), (200, 20), (5, 100, 60)], ids=str)
@pytest.mark.parametrize("samples", [10, 40])
def test_an_audit_of_some_samples_looks_at_all_classes(sizes: tuple[int, ...], samples: int) -> None:
    data = data_of(*sizes)
    found = sg.audit(Constant(len(sizes)), data, THREAT, samples=samples, **QUICK)
    drawn = found.records.frame.drop_duplicates("sample")["label"].value_counts()
    fair = [min(size, -(-samples // len(sizes))) for size in sizes]
    assert len(drawn) == len(sizes)
    assert all(drawn[c] >= min(size, samples // len(sizes)) for c, size in enumerate(sizes))
    assert drawn.max() - min(drawn[c] for c in range(len(sizes)) if drawn[c] < sizes[c]) <= max(1, samples - sum(fair))
    about, row = found.summary["data"], found.summary["models"][0]
    assert about["samples_of_classes"] == [int(drawn[c]) for c in range(len(sizes))]
    assert about["available_of_classes"] == list(sizes)
    assert row["clean"]["value"] == drawn[0] / samples
    # Class by class, the worst first: class 0 is always right, the others never.
    assert [r["robust"]["value"] for r in row["by_class"]] == [0.0] * (len(sizes) - 1) + [1.0]
    assert row["by_class"][-1]["name"] == "0"


def test_a_smaller_draw_is_part_of_a_larger_one_and_follows_from_the_seed() -> None:
    data = data_of(50, 50)
    ids = {
        (count, seed): sg.audit(Constant(2), data, THREAT, samples=count, seed=seed, **QUICK).records["sample"].tolist()
        for count in (10, 30)
        for seed in (0, 1)
    }
    assert set(ids[10, 0]) < set(ids[30, 0])
    assert set(ids[10, 0]) != set(ids[10, 1])


def test_the_checks_look_at_all_classes() -> None:
    found = sg.validity(Constant(2), data_of(100, 100), FGSM(), THREAT, count=40)
    steady = next(check for check in found.checks if check.name == "unbounded attack wins")
    # Half of the samples are wrong before any attack: of the first 40 none would be.
    assert steady.value is not None
    assert steady.value <= 0.5
    summary = sg.audit(Constant(2), data_of(100, 100), THREAT, checked=40, mapped=20, **QUICK)
    labels = summary.distances.frame.merge(summary.records.frame.drop_duplicates("sample")[["sample", "label"]])
    assert labels["label"].value_counts().to_dict() == {0: 20, 1: 20}


def test_maps_and_neurons_look_at_all_classes() -> None:
    data = data_of(60, 60)
    model = sg.models.build("mlp", data.shape, data.classes, hidden=(6,), seed=0)
    found = sg.audit(
        model, data, THREAT, explanations=True, explanation_samples=4, explanation_steps=1, explanation_restarts=1,
        explanation_certified=0, neurons=True, neuron_samples=6, **(QUICK | {"gallery": 4}),
    )  # fmt: skip
    shown = found.summary["explained"]["models"]["mlp"]["attributions"][0]["samples"]
    assert sorted(row["label"] for row in shown) == ["0", "0", "1", "1"]
    assert {row["label"] for row in found.summary["gallery"]["models"]["mlp"]} == {"0", "1"}
    drawn = data.draw(6)
    assert drawn.labels.tolist().count(0) == 3


def test_corrupted_images_are_drawn_too(tmp_path: Path) -> None:
    data = data_of(20, 20)
    pixels = np.concatenate([(data.tensors()[0].numpy()[:, 0] * 255).astype(np.uint8)] * 5)
    np.save(tmp_path / "fog.npy", pixels)
    np.save(tmp_path / "labels.npy", data.labels.numpy())
    found = sg.audit(Constant(2), data, THREAT, samples=10, corruptions=str(tmp_path), **QUICK)
    rows = found.summary["models"][0]["corruptions"]["rows"]
    assert [row["accuracy"]["value"] for row in rows] == [0.5] * 5


def test_a_limited_training_sees_all_classes(tmp_path: Path) -> None:
    data = data_of(80, 80)
    np.savez(tmp_path / "d.npz", x_train=data.images.numpy()[:, 0], y_train=data.labels.numpy())
    plan = TrainPlan.resolve(None, {"data": str(tmp_path / "d.npz"), "limit": 20})
    assert plan.samples().labels.bincount().tolist() == [10, 10]


@pytest.mark.slow
def test_hardening_on_drawn_images_says_what_all_images_say(tmp_path: Path) -> None:
    train, test = data_of(60, 60, 60), data_of(100, 100, 100, seed=1)
    start = Constant(3)
    settings = sg.FitSettings(epochs=4, lr=0.02, batch_size=30)
    how: dict[str, Any] = {"settings": settings, "validation": 0.1, **QUICK}
    some = sg.harden(start, train, sg.defenses.Plain(), THREAT, test=test, samples=90, **how)
    every = sg.harden(start, train, sg.defenses.Plain(), THREAT, test=test, **how)
    assert some.comparison.robust.count == 90
    assert every.comparison.robust.count == 300
    assert some.comparison.robust.low <= every.comparison.robust.value <= some.comparison.robust.high
    assert (some.comparison.outcome, every.comparison.outcome) == ("better", "better")


def test_the_least_number_of_samples_finds_what_concerns_a_fifth() -> None:
    def power(count: int) -> float:
        return float(binom.sf(critical_count(count, 0.01) - 1, count, 0.2))

    assert power(LEAST - 1) < 0.95 <= power(LEAST)


GOOD = Check("fine", True, 0.0, "", "fine")
BAD = Check("broken", False, 1.0, "", "noise breaks it")


@pytest.mark.parametrize(
    ("labels", "checks", "state", "words"),
    [
        ([0], [GOOD], "too few", "too few samples to judge: 1 checked, and at least 30 are needed"),
        ([0, 1], [GOOD], "too few", "too few samples to judge: 2 checked"),
        ([0, 1] * 14 + [0], [GOOD], "too few", "29 checked"),
        ([0, 1] * 15, [GOOD], "holds", "number holds"),
        ([1] * 500, [GOOD], "too few", "all 500 checked ones are of one class, 'dog'"),
        ([0, 1], [GOOD, BAD], "refuted", "number refuted, because noise breaks it"),
        ([1] * 500, [BAD], "refuted", "number refuted, because noise breaks it"),
    ],
)
def test_a_verdict_needs_samples(labels: list[int], checks: list[Check], state: str, words: str) -> None:
    found = verdict(checks, labels, ("cat", "dog"))
    assert found.state == state
    assert words in found.text
    assert found.holds is (state == "holds")


def test_classes_are_called_by_number_where_they_have_no_names() -> None:
    assert too_few([3] * 40) == "too few samples to judge: all 40 checked ones are of one class, class 3"


@pytest.mark.parametrize(
    ("labels", "settings", "words"),
    [
        ([0, 1], {}, "2 checked, and at least 30"),
        ([0] * 40, {}, "all 40 checked ones are of one class"),
        ([0, 1] * 40, {"samples": 8}, "8 checked"),
        ([0, 1] * 40, {"checked": 8}, "8 checked"),
    ],
    ids=["two", "one class", "few drawn", "few checked"],
)
def test_a_page_on_too_few_samples_is_never_green(
    tmp_path: Path, labels: list[int], settings: dict[str, Any], words: str
) -> None:
    data = data_of(40, 40).select([*range(labels.count(0)), *range(40, 40 + labels.count(1))])
    found = sg.audit(Brighter(), data, THREAT, out=tmp_path / "run", **QUICK, **settings)
    summary = Summary.model_validate(found.summary)
    assert summary.models[0].verdict.state == "too few"
    assert words in summary.models[0].verdict.text
    assert headline_section.sentence(summary).startswith("Too few samples to judge: ")
    page = sg.report.write(tmp_path / "run").read_text(encoding="utf-8")
    headline = page[page.index('<section id="result"') : page.index('<section id="classes"')]
    assert "✓" not in headline
    assert "too few samples to judge" in headline


def test_what_was_drawn_stands_on_the_page_and_warns_of_uneven_classes(tmp_path: Path) -> None:
    for name, sizes in (("even", (60, 60)), ("uneven", (150, 30))):
        sg.audit(Constant(2), data_of(*sizes), THREAT, samples=40, out=tmp_path / name, **QUICK)
        page = sg.report.write(tmp_path / name).read_text(encoding="utf-8")
        assert f"40 of {sum(sizes)} samples were drawn with seed 0, of all 2 classes" in page
        assert ("all classes weigh alike" in page) is (name == "uneven")


@pytest.mark.slow
def test_photos_in_class_folders_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draws = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, level in (("dark", 60), ("light", 190), ("middle", 120)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(30):
                pixels = draws.normal(level, 20, (8, 8)).clip(0, 255).astype("uint8")
                Image.fromarray(pixels).save(folder / f"{i:02}.png")
    monkeypatch.chdir(tmp_path)
    sg.models.build("mlp", (1, 8, 8), ("dark", "light", "middle"), hidden=(4,), seed=0).save("m.safetensors")
    main(["audit", "m.safetensors", "--data", "./photos", "--samples", "30", "--attack", "fgsm", "--json"])
    assert json.loads(capsys.readouterr().out)["data"]["samples_of_classes"] == [10, 10, 10]
    main(["train", "--data", "./photos", "--model", "mlp", "--limit", "30", "--epochs", "1", "--out", "t", "--json"])
    capsys.readouterr()
    quick = ["--attack", "fgsm", "--samples", "9", "--defense", "plain", "--epochs", "1", "--eps", "0.01", "--json"]
    main(["harden", "t", "--data", "./photos", "--out", "h", *quick])
    found = json.loads(capsys.readouterr().out)
    assert found["outcome"] == "too few"
    assert found["data"]["samples_of_classes"] == [3, 3, 3]
