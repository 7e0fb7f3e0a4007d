"""Accuracy per corruption and severity, from a folder in the layout of CIFAR-10-C."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steadygrad.audit.corruptions import accuracies, mean_corruption_error, predictions, runners
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.measuring.runner import Runner, SavedTables
from steadygrad.measuring.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images per severity; under fog s of the four look like the other class, under snow none does."""
    labels = np.tile([0, 1, 0, 1], 5)
    generator = np.random.default_rng(0)
    for name in ("fog", "snow"):
        bright = labels.astype(bool).copy()
        for severity in range(1, 5) if name == "fog" else ():
            bright[4 * severity : 4 * severity + severity] ^= True
        images = generator.integers(0, 100, (20, 6, 5, 3)) + 150 * bright[:, None, None, None]
        np.save(tmp_path / f"{name}.npy", images.astype(np.uint8))
    np.save(tmp_path / "labels.npy", labels)
    return tmp_path


class _Brightness(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([0.45 - mean, mean - 0.45], 1)


def _runner(store: Path | None = None) -> Runner:
    data = Dataset(torch.rand(1, 3, 6, 5), torch.tensor([0]), ("dark", "light"), ("s",))
    return Runner({"m": _Brightness()}, data, Store(store), batch_size=3)


def test_the_accuracy_of_each_corruption_and_severity(folder: Path, tmp_path: Path) -> None:
    runner = _runner(tmp_path / "tables")
    rows = accuracies(predictions(runners(runner, folder), "m"))
    table = {(row.corruption, row.severity): row.accuracy.value for row in rows}
    assert [table["fog", s] for s in range(1, 6)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert {table["snow", s] for s in range(1, 6)} == {1.0}
    assert mean_corruption_error(rows) == pytest.approx(0.25)
    assert (rows[0].plain()["count"], rows[0].plain()["corruption"]) == (4, "fog")
    computed = runner.store.computed
    assert computed == 10
    assert accuracies(predictions(runners(runner, folder), "m")) == rows
    assert runner.store.computed == computed
    saved = ((f"{row.corruption} {row.severity}", SavedTables(tmp_path / "tables")) for row in rows)
    assert accuracies(predictions(saved, "m")) == rows


def test_some_severities_and_few_images(folder: Path) -> None:
    some = accuracies(predictions(runners(_runner(), folder, severities=(5,), count=1), "m"))
    assert [(row.corruption, row.severity, row.accuracy.count) for row in some] == [("fog", 5, 1), ("snow", 5, 1)]


def test_nothing_has_no_mean() -> None:
    with pytest.raises(UsageError, match="no rows to take the mean of"):
        mean_corruption_error([])
