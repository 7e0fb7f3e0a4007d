"""Randomized models: found out, and attacked on average, reproducibly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from steadygrad import UsageError, linf
from steadygrad.attacks import FGSM, PGD, Expectation, is_deterministic
from steadygrad.attacks.expectation import base_of, draws_of, expected


class Noisy(nn.Module):
    """A linear model behind noise of its own."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.layer, self.size = nn.Linear(6, 2, bias=False), size
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[1.0, -1, 1, -1, 1, -1], [-1, 1, -1, 1, -1, 1]]))

    def forward(self, x):
        return self.layer(x + self.size * torch.randn_like(x))


def _inputs(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.full((count, 6), 0.5)
    x[:, 0] += torch.linspace(0.05, 0.45, count)  # the lead of class 0 is twice this
    return x, torch.zeros(count, dtype=torch.int64)


def test_what_draws_is_found_out():
    x, _ = _inputs(4)
    assert not is_deterministic(Noisy(0.01), x)
    assert is_deterministic(Noisy(0.0), x)
    assert is_deterministic(nn.Sequential(nn.Linear(6, 2), nn.Dropout()), x)  # silent in evaluation mode


def test_a_random_model_is_taken_on_average():
    x, _ = _inputs(8)
    steady, noisy = Noisy(0.0), Noisy(0.5)
    assert expected(steady, x) is steady
    mean = expected(noisy, x, 8)
    assert isinstance(mean, Expectation)
    assert (draws_of(mean), draws_of(noisy)) == (8, 1)
    assert base_of(mean) is base_of(noisy) is noisy


def test_the_mean_of_many_draws_is_the_model_without_noise():
    x, _ = _inputs()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        mean, single = Expectation(Noisy(0.3), draws=400)(x), Noisy(0.3)(x)
        exact = Noisy(0.0)(x)
    torch.testing.assert_close(mean, exact, atol=0.15, rtol=0)
    assert float((single - exact).abs().max()) > 0.5


def test_the_attack_on_the_expectation_finds_the_radius_of_the_model_beneath():
    # Without noise class 0 falls within eps exactly where the first entry's excess is below 6 eps.
    x, y = _inputs()
    threat = linf(0.04)
    exact = x[:, 0] - 0.5 < 6 * 0.04
    for attack in (FGSM(), PGD(steps=5)):
        found = attack(Expectation(Noisy(0.05), draws=64), x, y, threat).success
        assert float((found != exact).float().mean()) < 0.1
    # One draw at a time, noise condemns samples that no change of this size turns.
    single = PGD(steps=40)(Noisy(0.3), x, y, linf(1e-4)).success
    averaged = PGD(steps=40)(Expectation(Noisy(0.3), draws=64), x, y, linf(1e-4)).success
    assert single.sum() > averaged.sum()


def test_draws_follow_from_the_seeds_of_the_attack_alone():
    x, y = _inputs()

    def attack(seed):
        return PGD(steps=3)(Noisy(0.2), x, y, linf(0.03), generator=torch.Generator().manual_seed(seed)).inputs

    with torch.random.fork_rng(devices=[]):
        first = attack(0)
        torch.randn(5)
        assert torch.equal(first, attack(0))
    assert not torch.equal(first, attack(1))


def test_every_draw_is_counted():
    x, y = _inputs(3)
    one, four = (FGSM()(Expectation(Noisy(0.0), draws=d), x, y, linf(0.5)) for d in (1, 4))
    assert torch.equal(four.forwards, 4 * one.forwards)
    assert torch.equal(four.backwards, 4 * one.backwards)
    assert one.backwards.sum() > 0


def test_no_draws_are_refused():
    with pytest.raises(UsageError, match="draws must be at least 1, got 0"):
        Expectation(Noisy(0.1), draws=0)
