"""A small honestly trained model and its digits, shared by the evaluation tests."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

import steadygrad as sg
from evaluation import victims
from steadygrad.attacks import ATTACKS
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.registry import Row


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The test digits."""
    return sg.data.load("digits", "test")


@pytest.fixture(scope="session")
def honest() -> Classifier:
    """An MLP trained on the digits in about a second; read-only, evaluation mode."""
    return trained(hidden=(32,), seed=0)


@pytest.fixture(scope="session")
def other() -> Classifier:
    """Another such model, for transfer."""
    return trained(hidden=(24,), seed=1)


def trained(hidden: tuple[int, ...], seed: int) -> Classifier:
    train = sg.data.load("digits", "train")
    model = sg.models.build("mlp", train.shape, train.classes, seed=seed, hidden=hidden)
    model.name = f"mlp{hidden[0]}"
    x, y = train.tensors()
    steps = torch.optim.Adam(model.parameters(), lr=1e-2)
    order = torch.Generator().manual_seed(seed)
    for _ in range(25):
        for batch in torch.randperm(len(x), generator=order).split(128):
            loss = cross_entropy(model(x[batch]), y[batch])
            steps.zero_grad()
            loss.backward()
            steps.step()
    return model.eval().requires_grad_(False)


@pytest.fixture
def odd_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The purpose-built attacks of `victims`, registered for one test."""
    for method in victims.ATTACKS:
        row = Row(method.__name__.lower(), method, "", "", "", "attack", 1, ("linf", "l2", "l1"))
        monkeypatch.setitem(ATTACKS._rows, row.name, row)
