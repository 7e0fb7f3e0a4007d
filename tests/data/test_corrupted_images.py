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


def test_a_severity_is_its_part_of_the_file(corrupted_images: Path) -> None:
    assert corruptions_in(corrupted_images) == ("fog", "snow")
    data = load_corrupted(corrupted_images, "fog", 3, CLASSES)
    raw = np.load(corrupted_images / "fog.npy")[8:12]
    assert data.shape == (3, 6, 5)
    rows = [int(name[-5:]) for name in data.ids]
    assert sorted(rows) == [0, 1, 2, 3]
    assert torch.equal(data.images, torch.from_numpy(raw[rows]).permute(0, 3, 1, 2))
    assert data.labels.tolist() == [row % 2 for row in rows]
    assert len(load_corrupted(corrupted_images, "fog", 1, CLASSES, count=3)) == 3
    # Labels for one severity serve all, and images may be gray.
    np.save(corrupted_images / "labels.npy", np.array([1, 1, 0, 0]))
    np.save(corrupted_images / "fog.npy", np.zeros((20, 4, 4), np.uint8))
    gray = load_corrupted(corrupted_images, "fog", 5, CLASSES, count=2)
    assert gray.shape == (1, 4, 4)
    assert sorted(gray.labels.tolist()) == [0, 1]


def _pickle(path: Path) -> None:
    np.save(path / "fog.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: (p / "labels.npy").unlink(), r"must hold labels.npy and one .npy file per corruption.*fog.npy"),
        (lambda p: np.save(p / "labels.npy", np.zeros(7, int)), "20 integer labels, or 4 for each severity"),
        (lambda p: np.save(p / "fog.npy", np.zeros((20, 4, 4))), "must hold uint8 images"),
        (lambda p: np.save(p / "fog.npy", np.zeros((19, 4, 4), np.uint8)), r"got uint8 of shape \(19, 4, 4\)"),
        (lambda p: (p / "fog.npy").write_text("no"), "fog cannot be read from .*give a NumPy file of numbers"),
        (_pickle, "fog cannot be read from .*give a NumPy file of numbers"),
        (lambda p: np.save(p / "labels.npy", np.full(20, 9)), "must be within 0..1"),
    ],
)
def test_another_layout_is_refused(spoil: Any, words: str, corrupted_images: Path) -> None:
    spoil(corrupted_images)
    with pytest.raises(UsageError, match=words):
        load_corrupted(corrupted_images, "fog", 1, CLASSES)


def test_unknown_names_are_refused(corrupted_images: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no corruption 'fogg'; did you mean 'fog'"):
        load_corrupted(corrupted_images, "fogg", 1, CLASSES)
    with pytest.raises(UsageError, match=r"severity must be within 1\.\.5, got 6"):
        load_corrupted(corrupted_images, "fog", 6, CLASSES)
    with pytest.raises(UsageError, match="there is no folder"):
        corruptions_in(corrupted_images / "none")
