"""One function or not: repeated inputs, tiny noise, derivatives inside the forward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import steadygrad as sg
from evaluation import victims
from steadygrad.attacks import Expectation
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.evaluation.robustness import Bench
from steadygrad.evaluation.steadiness import deterministic, no_derivatives, steady

BOUNDS = (0.0, 1.0)


@pytest.fixture(scope="module")
def bench(digits: Dataset) -> Bench:
    return Bench(digits.take(100), batch_size=30)


@pytest.mark.parametrize("make", [lambda m: m, lambda m: victims.Sharp(m, 1e4), victims.Quantized, victims.Shattered])
def test_a_function_is_deterministic(honest: Classifier, bench: Bench, make: Callable[[nn.Module], nn.Module]) -> None:
    check = deterministic(bench, make(honest), 100)
    assert (check.passed, check.value) == (True, 0.0)


class Rare(nn.Module):
    """One row of each batch gets noise."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        return logits + torch.randn(1) * (torch.arange(len(x)) == 0)[:, None]


def test_every_random_answer_counts(honest: Classifier, bench: Bench) -> None:
    check = deterministic(bench, victims.Noisy(honest, 1e-3), 100)
    assert (check.passed, check.value) == (False, 1.0)
    rare = deterministic(bench, Rare(honest), 100)
    assert (rare.passed, rare.value) == (False, 0.04)  # batches of 30, 30, 30 and 10


def test_a_random_model_is_taken_on_average(honest: Classifier, bench: Bench) -> None:
    calm, wild = (deterministic(bench, Expectation(victims.Noisy(honest, s), 8), 100) for s in (0.1, 30.0))
    assert calm.passed is True
    assert wild.passed is False
    assert wild.value > 0.5
    assert "mean over 8 draws" in wild.text


def test_noise_that_turns_the_surest_predictions_is_seen_at_any_scale(honest: Classifier, bench: Bench) -> None:
    for factor in (1e-3, 1.0, 1e3):
        assert steady(bench, victims.Sharp(honest, factor), BOUNDS, 100).value == 0
        ripple = victims.Sharp(victims.Shattered(honest), factor)
        check = steady(bench, ripple, BOUNDS, 100)
        assert check.passed is False
        assert check.value > 0.5


def test_only_the_surer_half_counts(bench: Bench) -> None:
    # Turned by noise are the inputs at the boundary itself, which are the less sure half.
    data = victims.features([[0.5001]] * 10 + [[0.9]] * 10, [1] * 20)
    check = steady(Bench(data), victims.Halfspace([1.0], 0.5), BOUNDS, 20)
    assert (check.passed, check.value) == (True, 0.0)
    half = victims.features([[0.5001]] * 12 + [[0.9]] * 8, [1] * 20)
    assert steady(Bench(half), victims.Halfspace([1.0], 0.5), BOUNDS, 20).value > 0


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


def test_derivatives_in_the_forward_are_seen(honest: Classifier, bench: Bench) -> None:
    assert no_derivatives(bench, honest).passed is True
    for model in (victims.Purified(honest), Backward(honest, "method"), Backward(honest, "function")):
        check = no_derivatives(bench, model)
        assert (check.passed, check.value) == (False, 1.0)


def test_the_checks_leave_no_trace(honest: Classifier, bench: Bench) -> None:
    state = torch.get_rng_state()
    noisy = victims.Noisy(honest, 1.0).train()
    first = deterministic(bench, Expectation(noisy, 4), 100)
    assert deterministic(bench, Expectation(noisy, 4), 100) == first
    steady(bench, noisy, BOUNDS, 100)
    no_derivatives(bench, noisy)
    assert noisy.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_random_model_is_audited_as_its_mean(honest: Classifier, digits: Dataset) -> None:
    found = sg.audit(
        {"noisy": victims.Noisy(honest, 0.2)}, digits.take(30), sg.linf(0.1),
        attacks=[sg.attacks.PGD(steps=5)], attributions=(), gallery=0, checked=30, draws=4,
    ).summary["models"][0]  # fmt: skip
    assert found["draws"] == 4
    assert found["parameters"] == sum(p.numel() for p in honest.parameters())
    assert found["verdict"]["checks"][0]["name"] == "deterministic"
    assert "mean over 4 draws" in found["verdict"]["checks"][0]["text"]
