"""A sweep over eight radii costs less than two attacks at one of them.

One attack means: PGD at the smallest radius, where the most samples stand and pay for all steps. At a radius
at which almost all fall at once an attack is next to free, and a sweep, which has to look at the smaller
radii as well, cannot be had for twice that.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import steadygrad as sg
from steadygrad import data, models, randomness
from steadygrad.attacks import PGD
from steadygrad.attacks.attack_result import AttackResult
from steadygrad.measuring.measures.curve import GRID, smallest_in_grid


def passes(result: AttackResult) -> int:
    return int(result.forwards.sum() + result.backwards.sum())


def hardened(net: nn.Module, x: Tensor, y: Tensor, eps: float, *, epochs: int) -> nn.Module:
    """The network trained on against PGD."""
    net = copy.deepcopy(net).train()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            points = PGD(steps=4).perturb(net, x[rows], y[rows], sg.linf(eps))
            optimizer.zero_grad()
            F.cross_entropy(net(points), y[rows]).backward()
            optimizer.step()
    return net.eval()


def check(model: nn.Module, x: Tensor, y: Tensor, eps: float, attack: PGD) -> None:
    """The sweep over the grid of an audit at eps: its passes, and its places against separate attacks."""
    seeds, radii = randomness.sample_seeds(len(x), None), [eps * g for g in GRID]
    separate = [attack(model, x, y, sg.linf(radius), generator=seeds) for radius in radii]
    place, forwards, backwards = smallest_in_grid(attack, model, x, y, sg.linf(), radii, seeds)
    spent, costs = int(forwards.sum() + backwards.sum()), [passes(found) for found in separate]
    assert costs[0] == max(costs)
    assert spent < 2 * costs[0]
    assert spent < 0.75 * sum(costs)
    # It is no cheaper for being weaker: accuracy at every radius is that of the attack at this radius.
    for at, found in enumerate(separate):
        assert abs(int((place <= at).sum()) - int(found.success.sum())) <= 0.01 * len(x)
    assert len(place.unique()) >= 4


@pytest.mark.parametrize("eps", [0.04, 0.1, 0.2])
def test_on_plain_digits(digits, eps):
    model, x, y = digits
    check(model, x[:100], y[:100], eps, PGD())


@pytest.mark.slow
@pytest.mark.parametrize("eps", [0.1, 0.2])
def test_on_hardened_digits(digits, eps):
    model = hardened(digits[0], *data.load("digits", split="train").tensors(), 0.1, epochs=6)
    check(model, digits[1][:100], digits[2][:100], eps, PGD())


@pytest.mark.slow
@pytest.mark.parametrize("hard", [False, True])
def test_on_mnist(data_root, hard):
    train, test = (data.load("mnist", split=split) for split in ("train", "test"))
    inputs, labels = train.batch(slice(0, 6000))
    net = models.build("mlp", (1, 28, 28), 10, hidden=(100,))
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(3):
        for rows in torch.randperm(len(inputs)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(net(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    model = hardened(net, inputs[:3000], labels[:3000], 0.1, epochs=2) if hard else net.eval()
    x, y = test.batch(slice(0, 100))
    assert (model(x).argmax(1) == y).float().mean() > 0.85
    check(model, x, y, 0.1 if hard else 0.05, PGD())
