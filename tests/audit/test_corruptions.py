"""Accuracy per corruption and severity, from a folder in the layout of CIFAR-10-C."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import steadygrad as sg
from steadygrad.attacks import FGSM
from steadygrad.audit.audit import read
from steadygrad.audit.corruptions import corrupted, corruptions, kinds
from steadygrad.data import Dataset, from_arrays
from steadygrad.measuring.runner import Runner, SavedTables
from steadygrad.measuring.store import Store


class _Brightness(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([0.45 - mean, mean - 0.45], 1)


def _runner(store: Path | None = None) -> Runner:
    data = Dataset(torch.rand(1, 3, 6, 5), torch.tensor([0]), ("dark", "light"), ("s",))
    return Runner({"m": _Brightness()}, data, Store(store), batch_size=3)


def test_the_accuracy_of_each_corruption_and_severity(corrupted_images: Path, tmp_path: Path) -> None:
    runner, names = _runner(tmp_path / "tables"), kinds(corrupted_images, None)
    assert list(names) == [f"{name} {severity}" for name in ("fog", "snow") for severity in range(1, 6)]
    found = corruptions(lambda kind: corrupted(runner, corrupted_images, kind, None), names, "m")
    table = {(row["corruption"], row["severity"]): row["accuracy"] for row in found["rows"]}
    assert [table["fog", s]["value"] for s in range(1, 6)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert {table["snow", s]["value"] for s in range(1, 6)} == {1.0}
    assert found["mean_error"] == pytest.approx(0.25)
    assert table["fog", 1]["count"] == 4
    assert set(names.values()) == {4}
    assert set(kinds(corrupted_images, 3).values()) == {3}
    computed = runner.store.computed
    assert computed == 10
    assert corruptions(lambda kind: corrupted(runner, corrupted_images, kind, None), names, "m") == found
    assert runner.store.computed == computed
    saved = SavedTables(tmp_path / "tables", 4)
    assert corruptions(lambda kind: saved, names, "m") == found


def test_few_images(corrupted_images: Path) -> None:
    runner = _runner()
    found = corruptions(lambda kind: corrupted(runner, corrupted_images, kind, 1), ["fog 5"], "m")
    assert [row["accuracy"]["count"] for row in found["rows"]] == [1]


def test_an_audit_measures_corruptions_and_its_page_is_drawn_from_the_tables(
    corrupted_images: Path, tmp_path: Path
) -> None:
    data = from_arrays(torch.rand(6, 3, 6, 5), torch.arange(6) % 2, ("dark", "light"))
    settings = {
        "attacks": [FGSM()],
        "attributions": (),
        "gallery": 0,
        "checked": 4,
        "corruptions": str(corrupted_images),
    }
    found = sg.audit({"m": _Brightness()}, data, sg.linf(0.05), out=tmp_path / "run", **settings)
    assert found.summary["models"][0]["corruptions"]["mean_error"] == pytest.approx(0.25)
    for file in corrupted_images.glob("*.npy"):
        file.unlink()
    assert read(tmp_path / "run").summary == found.summary
    page = sg.report.write(tmp_path / "run").read_text(encoding="utf-8")
    assert "accuracy under common corruptions" in page
    assert "fog" in page
