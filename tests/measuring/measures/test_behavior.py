"""One function or not: repeated inputs, tiny noise, derivatives inside the forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import steadygrad as sg
from audit import victims
from steadygrad.attacks import Expectation
from steadygrad.attacks.expectation import draws_of
from steadygrad.audit.checks import validity
from steadygrad.audit.checks.validity import Subject
from steadygrad.audit.checks.verdict import Check
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.measuring.measures.behavior import DerivativesTaken, NoiseTurned, Repeated
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.table import Table

Make = Callable[[nn.Module], nn.Module]


@pytest.fixture(scope="module")
def data(digits: Dataset) -> Dataset:
    return digits.take(100)


def check(of: Callable[[Subject], Check], model: nn.Module, data: Dataset) -> Check:
    """What one of the checks says of a model on the data, in batches of thirty."""
    runner = Runner({"m": model}, data, batch_size=30)
    base = Table({"sample": np.array(data.ids)})
    rows = tuple(range(len(data)))
    return of(
        Subject(
            runner, "m", draws_of(model), sg.attacks.FGSM(), sg.linf(0.1), base, rows, len(data.classes), data.shape
        )
    )


def measured(measure: Any, model: nn.Module, data: Dataset) -> Table:
    return Runner({"m": model}, data, batch_size=30).run(measure, "m")


@pytest.mark.parametrize("make", [lambda m: m, lambda m: victims.Sharp(m, 1e4), victims.Quantized, victims.Shattered])
def test_a_function_is_deterministic(honest: Classifier, data: Dataset, make: Make) -> None:
    found = check(validity.deterministic, make(honest), data)
    assert (found.passed, found.value) == (True, 0.0)


class Rare(nn.Module):
    """One row of each batch gets noise."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        return logits + torch.randn(1) * (torch.arange(len(x)) == 0)[:, None]


def test_every_random_answer_counts(honest: Classifier, data: Dataset) -> None:
    found = check(validity.deterministic, victims.Noisy(honest, 1e-3), data)
    assert (found.passed, found.value) == (False, 1.0)
    rare = check(validity.deterministic, Rare(honest), data)
    assert (rare.passed, rare.value) == (False, 0.04)  # batches of 30, 30, 30 and 10
    assert np.flatnonzero(measured(Repeated(), Rare(honest), data)["differs"]).tolist() == [0, 30, 60, 90]


def test_a_random_model_is_taken_on_average(honest: Classifier, data: Dataset) -> None:
    calm, wild = (check(validity.deterministic, Expectation(victims.Noisy(honest, s), 8), data) for s in (0.1, 30.0))
    assert calm.passed is True
    assert wild.passed is False
    assert wild.value is not None
    assert wild.value > 0.5
    assert "mean over 8 draws" in wild.text


def test_noise_that_turns_the_surest_predictions_is_seen_at_any_scale(honest: Classifier, data: Dataset) -> None:
    for factor in (1e-3, 1.0, 1e3):
        assert check(validity.steady, victims.Sharp(honest, factor), data).value == 0
        ripple = check(validity.steady, victims.Sharp(victims.Shattered(honest), factor), data)
        assert ripple.passed is False
        assert ripple.value is not None
        assert ripple.value > 0.5


def test_only_the_surer_half_counts() -> None:
    # Turned by noise are the inputs at the boundary itself, which are the less sure half.
    edge = victims.features([[0.5001]] * 10 + [[0.9]] * 10, [1] * 20)
    found = check(validity.steady, victims.Halfspace([1.0], 0.5), edge)
    assert (found.passed, found.value) == (True, 0.0)
    half = victims.features([[0.5001]] * 12 + [[0.9]] * 8, [1] * 20)
    assert check(validity.steady, victims.Halfspace([1.0], 0.5), half).value
    turned = measured(NoiseTurned(), victims.Halfspace([1.0], 0.5), half)
    assert turned["gap"].tolist() == pytest.approx([1e-4] * 12 + [0.4] * 8, abs=1e-6)
    assert turned["turned"][:12].any()
    assert not turned["turned"][12:].any()


class Backward(nn.Module):
    """Takes a derivative in one of PyTorch's other ways."""

    def __init__(self, model: nn.Module, way: str) -> None:
        super().__init__()
        self.model, self.way = model, way

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            value = self.model(inner).sum()
            if self.way == "method":
                value.backward()
            else:
                torch.autograd.backward(value)
        return self.model(x)


def test_derivatives_in_the_forward_are_seen(honest: Classifier, data: Dataset) -> None:
    assert check(validity.no_derivative, honest, data).passed is True
    for model in (victims.Purified(honest), Backward(honest, "method"), Backward(honest, "function")):
        found = check(validity.no_derivative, model, data)
        assert (found.passed, found.value) == (False, 1.0)
        assert set(measured(DerivativesTaken(), model, data)["derivatives"]) == {1}


def test_the_measures_leave_no_trace(honest: Classifier, data: Dataset) -> None:
    state = torch.get_rng_state()
    noisy = victims.Noisy(honest, 1.0).train()
    first = measured(Repeated(), Expectation(noisy, 4), data)
    assert measured(Repeated(), Expectation(noisy, 4), data).frame.equals(first.frame)
    assert len(measured(NoiseTurned(), noisy, data)) == len(measured(DerivativesTaken(), noisy, data)) == 100
    assert noisy.training
    assert torch.equal(torch.get_rng_state(), state)
