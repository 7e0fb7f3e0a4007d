"""A small trained model on the digits, and its images, as the benchmark wants them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.attacks.subject import Subject, subject
from steadygrad import data, models
from steadygrad.defenses import Plain
from steadygrad.training import FitSettings, fit


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A perceptron, trained for a second."""
    train, out = data.load("digits", "train"), tmp_path_factory.mktemp("model")
    start = models.build("mlp", train.shape, train.classes, hidden=(32,))
    fit(start, Plain(), train, settings=FitSettings(epochs=5, batch_size=64, lr=1e-2), out=out)
    return out / "model.safetensors"


@pytest.fixture(scope="session")
def small(model_file: Path) -> Subject:
    """Twenty images."""
    return subject("digits", str(model_file), 20, out=Path("unused"), seed=0, device="cpu")
