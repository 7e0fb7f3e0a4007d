"""The model and the images that all libraries attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steadygrad import defenses, models
from steadygrad.classifier import Classifier, predict
from steadygrad.data import Dataset, load
from steadygrad.errors import Failure, UsageError
from steadygrad.measuring.statistics import Estimate, wilson
from steadygrad.training import FitSettings, fit

__all__ = ["RECIPES", "Recipe", "Subject", "subject"]


@dataclass(frozen=True)
class Recipe:
    """How the benchmark trains its model on a data set, and the test accuracy below which it does not go on."""

    architecture: str
    settings: FitSettings
    least: float


RECIPES: Mapping[str, Recipe] = {
    "mnist": Recipe("lenet", FitSettings(epochs=3, batch_size=128, lr=2e-3, schedule="linear"), 0.985),
    "digits": Recipe("digits_cnn", FitSettings(epochs=20, batch_size=64, lr=4e-3, schedule="cosine", warmup=0.2), 0.95),
}


@dataclass(frozen=True)
class Subject:
    """A trained model and the first test images that it classifies correctly."""

    model: Classifier
    data: Dataset
    accuracy: Estimate
    x: Tensor
    y: Tensor
    ids: tuple[str, ...]

    def targets(self) -> Tensor:
        """For attacks with a target: the next class of each image (N,)."""
        return (self.y + 1) % len(self.data.classes)


def subject(data: str, model: str | None, count: int, *, out: Path, seed: int, device: str) -> Subject:
    """Load the data; load the model, or train it in `out`; choose the images.

    Raises:
        UsageError: no recipe to train on these data, or a model that does not fit them.
        Failure: the model is less accurate than its recipe asks, or classifies too few images correctly.
    """
    test = load(data, "test")
    if model is not None:
        classifier, least = models.load(model, data=test), 0.0
    else:
        classifier, least = _trained(data, out, seed, device)
    classifier.eval().to(device)
    right = _right(classifier, test, device)
    accuracy = wilson(int(right.sum()), len(test))
    if accuracy.value < least:
        raise Failure(
            f"the model in {out} has a test accuracy of {accuracy}, and the benchmark asks for {100 * least:g} %: "
            "delete the folder and run again with another --seed"
        )
    chosen = right.nonzero().squeeze(1)[:count]
    if len(chosen) < count:
        raise Failure(f"the model classifies only {len(chosen)} of {len(test)} images correctly: give --samples less")
    images = test.select(chosen)
    x, y = (tensor.to(device) for tensor in images.tensors())
    return Subject(classifier, test, accuracy, x, y, images.ids)


def _trained(data: str, out: Path, seed: int, device: str) -> tuple[Classifier, float]:
    if data not in RECIPES:
        raise UsageError(f"the benchmark trains on {' or '.join(RECIPES)} only: give --model for {data}")
    recipe, train = RECIPES[data], load(data, "train")
    start = models.build(recipe.architecture, train.shape, train.classes, seed=seed)
    done = fit(start, defenses.parse("plain"), train, settings=recipe.settings, out=out, seed=seed, device=device)
    return done.classifier, recipe.least


def _right(classifier: Classifier, test: Dataset, device: str) -> Tensor:
    parts: list[Any] = []
    for start in range(0, len(test), 500):
        x, y = test.batch(slice(start, start + 500))
        parts.append(predict(classifier, x.to(device))[0].cpu() == y)
    return torch.cat(parts)
