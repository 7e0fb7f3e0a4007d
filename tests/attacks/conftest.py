"""Small networks trained on the bundled digits, once per session."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import nets
from steadygrad import data

Trained = tuple[nn.Module, Tensor, Tensor]


def train(net: nn.Module, x: Tensor, y: Tensor, *, epochs: int, rate: float) -> nn.Module:
    optimizer = torch.optim.Adam(net.parameters(), rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    for parameter in net.parameters():
        parameter.grad = None
    return net.eval()


@pytest.fixture(scope="session")
def digits() -> Trained:
    """A trained network with 200 test digits (N, 1, 8, 8) and their labels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        train(net, *data.load("digits", split="train").tensors(), epochs=12, rate=1e-2)
    x, y = data.load("digits", split="test").tensors()
    assert (net(x[:200]).argmax(1) == y[:200]).float().mean() > 0.93
    return net, x[:200], y[:200]


@pytest.fixture(scope="session")
def lively() -> Callable[..., Trained]:
    """Builds a tiny untrained network whose predictions differ and change within small radii."""

    def build(
        kind: str = "conv",
        count: int = 8,
        classes: int = 3,
        shape: tuple[int, int, int] = (1, 4, 4),
        dtype: torch.dtype = torch.float64,
    ) -> Trained:
        net = nets.build(kind, classes=classes, shape=shape, dtype=torch.float64, activation=nn.ReLU)
        x = nets.inputs(count, shape=shape, dtype=torch.float64)
        with torch.no_grad():
            last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
            logits = net(x)
            spread = logits.std(0).mean()
            last.bias -= logits.mean(0)
            last.weight /= spread
            last.bias /= spread
            y = net(x).argmax(1)
        return net.to(dtype), x.to(dtype), y

    return build
