"""The layout of CIFAR-10-C: read as it is, refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steadygrad.data.corrupted_images import corruptions_in, load_corrupted
from steadygrad.errors import UsageError

CLASSES = ("dark", "light")


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


def test_a_severity_is_its_part_of_the_file(folder: Path) -> None:
    assert corruptions_in(folder) == ("fog", "snow")
    data = load_corrupted(folder, "fog", 3, CLASSES)
    raw = np.load(folder / "fog.npy")[8:12]
    assert data.shape == (3, 6, 5)
    assert torch.equal(data.images, torch.from_numpy(raw).permute(0, 3, 1, 2))
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert len(load_corrupted(folder, "fog", 1, CLASSES, count=3)) == 3
    # Labels for one severity serve all, and images may be gray.
    np.save(folder / "labels.npy", np.array([1, 1, 0, 0]))
    np.save(folder / "fog.npy", np.zeros((20, 4, 4), np.uint8))
    gray = load_corrupted(folder, "fog", 5, CLASSES, count=2)
    assert gray.shape == (1, 4, 4)
    assert gray.labels.tolist() == [1, 1]


def _pickle(path: Path) -> None:
    np.save(path / "fog.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: (p / "labels.npy").unlink(), r"must hold labels.npy and one .npy file per corruption.*fog.npy"),
        (lambda p: np.save(p / "labels.npy", np.zeros(7, int)), "20 integer labels, or 4 for each severity"),
        (lambda p: np.save(p / "fog.npy", np.zeros((20, 4, 4))), "must hold uint8 images"),
        (lambda p: np.save(p / "fog.npy", np.zeros((19, 4, 4), np.uint8)), r"got uint8 of shape \(19, 4, 4\)"),
        (lambda p: (p / "fog.npy").write_text("no"), "is not a NumPy file of numbers"),
        (_pickle, "is not a NumPy file of numbers"),
        (lambda p: np.save(p / "labels.npy", np.full(20, 9)), "must be within 0..1"),
    ],
)
def test_another_layout_is_refused(spoil: Any, words: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(UsageError, match=words):
        load_corrupted(folder, "fog", 1, CLASSES)


def test_unknown_names_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no corruption 'fogg'; did you mean 'fog'"):
        load_corrupted(folder, "fogg", 1, CLASSES)
    with pytest.raises(UsageError, match=r"severity must be within 1\.\.5, got 6"):
        load_corrupted(folder, "fog", 6, CLASSES)
    with pytest.raises(UsageError, match="there is no folder"):
        corruptions_in(folder / "none")
