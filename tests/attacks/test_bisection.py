"""Smallest radii by bisection: against exact distances and a fine grid, per sample."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from steadygrad.attacks import BIM, FGSM, PGD, RandomNoise
from steadygrad.threat import Threat

RESOLUTION = 2**-5


class _Linear(nn.Module):
    """Two classes with margin w (x - 0.5) + bias."""

    def __init__(self, w: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.w, self.bias = w, bias

    def forward(self, x: Tensor) -> Tensor:
        score = ((x - 0.5) * self.w).sum(1, keepdim=True) + self.bias
        return torch.cat([score, -score], 1)


def _at_margins() -> tuple[nn.Module, Tensor, Tensor, Tensor, Tensor]:
    """Inputs away from the bounds, at margins from almost none to about a third of the range."""
    w = torch.linspace(-1, 1.3, 12, dtype=torch.float64)
    margins = torch.tensor([1e-3, 0.01, 0.1, 0.3], dtype=torch.float64)
    x = 0.5 + margins[:, None] * w / (w * w).sum()
    return _Linear(w), x, torch.zeros(4, dtype=torch.int64), margins, w


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", float("inf"))])
def test_distances_are_exact_to_the_resolution(norm, dual):
    model, x, y, margins, w = _at_margins()
    result = PGD(steps=20)(model, x, y, Threat(norm))
    assert result.success.all()
    error = result.distance * torch.linalg.vector_norm(w, ord=dual) / margins - 1
    assert (error > -1e-6).all()
    assert (error < RESOLUTION).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_an_unbreakable_model_is_censored_not_zero(norm):
    _, x, y, _, w = _at_margins()
    result = FGSM()(_Linear(w, bias=1e3), x, y, Threat(norm))
    assert not result.success.any()
    assert torch.isinf(result.distance).all()
    assert torch.equal(result.inputs, x)


def test_clean_mistakes_are_at_distance_zero():
    model, x, y, _, _ = _at_margins()
    result = BIM()(model, x, 1 - y, Threat("l2"))
    assert result.success.all()
    assert (result.distance == 0).all()
    assert torch.equal(result.inputs, x)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_distances_equal_a_fine_grid(digits, norm):
    model, x, y = digits
    x, y = x[:40], y[:40]
    attack = PGD(steps=10, random_start=False)
    found = attack(model, x, y, Threat(norm))
    assert found.success.all()
    # The smallest of 300 radii, each 1 % above the last, at which the attack succeeds.
    grid = Threat(norm).largest(x)[0] * 1.01 ** torch.arange(-700.0, 0.0)
    smallest = torch.full((40,), torch.inf)
    for radius in grid:
        hit = attack(model, x, y, Threat(norm, float(radius)))
        smallest = torch.minimum(smallest, hit.distance)
        if torch.isfinite(smallest).all():
            break
    right = found.distance > 0
    assert right.sum() > 30
    error = (found.distance / smallest - 1).abs()[right]
    # Success need not be monotone in the radius for a net, so bisection may meet another crossing.
    assert (error <= RESOLUTION).float().mean() > 0.9
    assert error.median() < 0.015


def test_a_smallest_change_is_per_sample(digits):
    model, x, y = digits
    attack = PGD(steps=3)
    seeds = torch.arange(6)
    whole = attack(model, x[:6], y[:6], Threat("l2"), generator=seeds)
    for i in range(6):
        alone = attack(model, x[i : i + 1], y[i : i + 1], Threat("l2"), generator=seeds[i : i + 1])
        torch.testing.assert_close(alone.distance[0], whole.distance[i])
        assert alone.forwards[0] == whole.forwards[i]
        assert alone.backwards[0] == whole.backwards[i]


def test_l0_distances_are_whole():
    # One of the four entries reaches the boundary alone; for the other sample it takes two.
    model = _Linear(torch.tensor([4.0, 3.0, 3.0, 3.0]))
    x = torch.tensor([[0.6, 0.6, 0.6, 0.6], [0.9, 0.9, 0.9, 0.5]])
    result = RandomNoise(draws=400)(model, x, torch.tensor([0, 0]), Threat("l0"))
    assert result.distance.tolist() == [1.0, 2.0]


def test_targets_hold_through_the_search(digits):
    model, x, y = digits
    x, y = x[:8], y[:8]
    target = (y + 1) % 10
    result = PGD(steps=10)(model, x, y, Threat("linf"), target=target)
    assert result.success.sum() > 4
    assert (model(result.inputs).argmax(1) == target)[result.success].all()


def test_the_search_keeps_no_graph(digits):
    model, x, y = digits
    result = FGSM()(model, x[:2].clone().requires_grad_(), y[:2], Threat("linf"))
    assert not result.inputs.requires_grad
    assert not result.distance.requires_grad
