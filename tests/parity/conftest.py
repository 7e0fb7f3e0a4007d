"""A trained model, and the other libraries where they are installed; elsewhere the tests are skipped, visibly."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from benchmarks.attacks.libraries import LIBRARIES, missing
from benchmarks.attacks.meter import quiet
from steadygrad import data

Trained = tuple[nn.Module, Tensor, Tensor]


def _library(name: str) -> ModuleType:
    reason = missing(name)
    if reason is not None:
        pytest.skip(f"{name} {reason} (make test installs it)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(LIBRARIES[name].module)


@pytest.fixture
def foolbox() -> ModuleType:
    return _library("foolbox")


@pytest.fixture
def torchattacks() -> ModuleType:
    return _library("torchattacks")


@pytest.fixture
def art() -> ModuleType:
    """The toolbox's module of evasion attacks."""
    return _library("art")


@pytest.fixture(autouse=True)
def _seeded_and_silent() -> Iterator[None]:
    """What the others print, warn and draw stays among them."""
    with quiet(0):
        yield


@pytest.fixture(scope="session")
def digits() -> Trained:
    """A trained network with the first 100 test digits (N, 1, 8, 8) that it classifies correctly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        x, y = data.load("digits", "train").tensors()
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(12):
            for rows in torch.randperm(len(x)).split(128):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
    net.zero_grad()
    x, y = data.load("digits", "test").tensors()
    right = (net.eval()(x).argmax(1) == y).nonzero().squeeze(1)[:100]
    assert len(right) == 100
    return net, x[right], y[right]


@pytest.fixture
def wrapped(art: ModuleType) -> Callable[..., object]:
    """Wraps a model for the toolbox: `wrapped(model, x, classes=10, bounds=(0, 1))`."""
    from benchmarks.attacks.libraries.art import estimator

    def wrap(model: nn.Module, x: Tensor, classes: int = 10, bounds: tuple[float, float] = (0.0, 1.0)) -> object:
        return estimator(model, tuple(x.shape[1:]), classes, bounds, x)

    return wrap
