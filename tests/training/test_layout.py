"""Gradients and moments reach the optimizer in the layout of their weights."""

from __future__ import annotations

import pytest
import torch

from steadygrad import models
from steadygrad.data.dataset import Dataset
from steadygrad.defenses import JacobianPenalty, Plain
from steadygrad.training import FitSettings, fit


def test_a_penalty_that_weighs_nothing_changes_no_weight():
    # Double backward through a convolution of several channels returns transposed gradients.
    data = _images()
    for optimizer in ("adam", "sgd"):
        settings = FitSettings(epochs=3, batch_size=16, optimizer=optimizer, lr=1e-2)
        plain, penalized = (
            fit(models.build("lenet", data.shape, data.classes, seed=0), defense, data, settings=settings, seed=0)
            for defense in (Plain(), JacobianPenalty(1e-12))
        )
        pairs = zip(plain.classifier.parameters(), penalized.classifier.parameters(), strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_model_with_channels_last_continues_to_the_same_weights(tmp_path, optimizer):
    data, settings = _images(), FitSettings(epochs=4, batch_size=16, optimizer=optimizer, lr=1e-2)

    def trained(**where):
        start = models.build("lenet", data.shape, data.classes, seed=0).to(memory_format=torch.channels_last)
        return fit(start, Plain(), data, settings=settings, seed=0, **where).classifier

    def stop(classifier, steps):
        if steps == 6:
            raise _Stopped

    with pytest.raises(_Stopped):
        trained(out=tmp_path, watch=stop)
    for one, other in zip(trained(out=tmp_path).parameters(), trained().parameters(), strict=True):
        assert one.equal(other)


def test_channels_last_is_a_matter_of_speed(tmp_path):
    data = _images()

    def trained(channels_last):
        settings = FitSettings(epochs=3, batch_size=16, lr=1e-2, channels_last=channels_last)
        start = models.build("lenet", data.shape, data.classes, seed=0)
        layouts = []
        fit(
            start, JacobianPenalty(0.1), data, settings=settings, seed=0, out=tmp_path / str(channels_last),
            watch=lambda model, steps: layouts.append(model.module[0].weight.is_contiguous()),
        )  # fmt: skip
        # The second call finds the finished run.
        again = fit(start, JacobianPenalty(0.1), data, settings=settings, seed=0, out=tmp_path / str(channels_last))
        return list(again.classifier.parameters()), layouts

    (usual, before), (faster, after) = trained(False), trained(True)
    assert all(before)
    assert not any(after)
    assert all(weight.is_contiguous() for weight in faster)
    for one, other in zip(usual, faster, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def _images():
    drawn = torch.Generator().manual_seed(0)
    images = torch.rand(48, 3, 16, 16, generator=drawn)
    return Dataset(images, torch.arange(48) % 3, ("a", "b", "c"), tuple(str(n) for n in range(48)))
