"""Gradients reach the optimizer in the layout of their weights."""

from __future__ import annotations

import torch

from steadygrad import models
from steadygrad.data.dataset import Dataset
from steadygrad.defenses import JacobianPenalty, Plain
from steadygrad.training import FitSettings, fit


def test_a_penalty_that_weighs_nothing_changes_no_weight():
    # Double backward through a convolution of several channels returns transposed gradients.
    drawn = torch.Generator().manual_seed(0)
    images = torch.rand(48, 3, 16, 16, generator=drawn)
    data = Dataset(images, torch.arange(48) % 3, ("a", "b", "c"), tuple(str(n) for n in range(48)))
    for optimizer in ("adam", "sgd"):
        settings = FitSettings(epochs=3, batch_size=16, optimizer=optimizer, lr=1e-2)
        plain, penalized = (
            fit(models.build("lenet", data.shape, data.classes, seed=0), defense, data, settings=settings, seed=0)
            for defense in (Plain(), JacobianPenalty(1e-12))
        )
        pairs = zip(plain.classifier.parameters(), penalized.classifier.parameters(), strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
