"""No attack needs much more memory than a training step of the same batch.

What is measured is the peak of what torch's allocator hands out during a call, temporary results inside
kernels included; it is the same from run to run. Weights and inputs exist before and do not count.
"""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nets
from attacks.cheap import cheap
from gates import peak
from steadygrad.attacks import APGD, ATTACKS, JSMA
from steadygrad.threat import Threat

EPS = {"linf": 1e-3, "l2": 1e-2, "l1": 0.1, "l0": 4.0}
LIMIT = 1.3
BATCH = 8


@functools.cache
def network() -> tuple[nn.Module, Tensor, Tensor]:
    """A plain convolutional network, more activations than weights, with a batch that it gets right."""
    layers: list[nn.Module] = []
    for channels in (3, 16, 16, 16):
        layers += [nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10)).eval()
    x = nets.inputs(BATCH, shape=(3, 32, 32))
    with torch.no_grad():
        y = net(x).argmax(1)
    return net, x, y


def train(net: nn.Module, x: Tensor, y: Tensor) -> None:
    net.train()
    loss = F.cross_entropy(net(x), y)
    torch.autograd.grad(loss, list(net.parameters()))
    net.eval()


@functools.cache
def budget() -> int:
    return peak(lambda: train(*network()))


def test_the_peak_is_that_of_the_tensors_that_live_at_once():
    def call() -> None:
        first = torch.zeros(1000, 1000)
        second = first + 1
        del first
        third = torch.stack([second, second])
        del second, third

    assert peak(call) == 12_000_000


def test_activations_dominate_a_training_step():
    net, x, _ = network()
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    assert budget() > 50 * weights
    assert budget() > 50 * x.numel() * x.element_size()


@pytest.mark.parametrize(("name", "norm"), [(row.name, norm) for row in ATTACKS for norm in row.norms])
def test_an_attack_needs_hardly_more_than_a_training_step(name, norm):
    net, x, y = network()
    call = functools.partial(cheap(name, steps=2, queries=3), net, x, y, Threat(norm, EPS[norm]))
    for target in (None, "least-likely"):
        used = peak(functools.partial(call, target=target))
        assert used <= LIMIT * budget(), f"{used / budget():.2f} training steps"


def test_targets_one_after_the_other_need_no_more_than_one():
    net, x, y = network()
    few, many = (
        peak(lambda t=t: APGD(steps=2, loss="dlr-targets", targets=t)(net, x, y, Threat("linf", 1e-3))) for t in (1, 9)
    )
    assert many <= 1.05 * few


@pytest.mark.slow
def test_jsma_on_large_images_within_two_gigabytes():
    net = nn.Sequential(nn.Conv2d(3, 16, 7, 4, 3), nn.ReLU(), nn.AvgPool2d(7), nn.Flatten(), nn.Linear(16 * 64, 10))
    x = nets.inputs(8, shape=(3, 224, 224))
    y = net(x).argmax(1)
    steps = []
    handle = net.register_forward_hook(lambda *_: steps.append(1))
    used = peak(lambda: JSMA(theta=0.5)(net, x, y, Threat("l0", 12.0)))
    handle.remove()
    assert len(steps) > 5
    assert used < 2 * 2**30
