"""The moments of the data are those of all drawn pixels, and lazy images are decoded a batch at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from steadygrad.data import Dataset, load
from steadygrad.data.lazy import LazyImages
from steadygrad.training.train_plan import moments


@pytest.mark.parametrize("features", [False, True])
def test_moments_are_those_of_all_values(features: bool) -> None:
    data = load("digits", "train", color=None if features else "rgb")
    if features:
        data = dataclasses.replace(data, images=data.tensors()[0].flatten(1))
    x, _ = data.tensors()
    rows = (x.flatten()[None] if features else x.transpose(0, 1).flatten(1)).double()
    mean, std = moments(data)
    assert mean == pytest.approx(rows.mean(1).tolist(), abs=1e-12)
    assert std == pytest.approx(rows.std(1).tolist(), abs=1e-12)


def test_a_constant_channel_has_a_small_spread_and_not_none() -> None:
    images = torch.full((6, 1, 2, 2), 51, dtype=torch.uint8)
    data = Dataset(images, torch.tensor([0, 1] * 3), ("a", "b"), tuple("abcdef"))
    assert moments(data) == (pytest.approx([0.2]), [1e-3])


def test_lazy_images_are_never_all_decoded_at_once() -> None:
    memory = load("digits", "train")
    asked: list[int] = []

    def read(rows: Sequence[int]) -> Tensor:
        asked.append(len(rows))
        return torch.as_tensor(memory.images[list(rows)])

    lazy = LazyImages(read, torch.arange(len(memory)), torch.as_tensor(memory.images[0]))
    assert moments(dataclasses.replace(memory, images=lazy)) == moments(memory)
    assert max(asked) <= 256
    assert sum(asked) == len(memory)
