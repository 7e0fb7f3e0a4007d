"""Passes are counted the same for everybody, and code of others leaves nothing behind."""

from __future__ import annotations

import contextlib
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.attacks.meter import Lap, Meter, bare, clock, quiet
from benchmarks.attacks.tasks import ours, tasks
from steadygrad.attacks.attack_result import AttackResult


@pytest.fixture
def meter() -> Meter:
    return Meter(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))


def test_forwards_are_rows(meter):
    with torch.no_grad():
        meter(torch.zeros(5, 1, 2, 2))
    meter(torch.zeros(2, 1, 2, 2))
    assert (meter.forwards, meter.backwards) == (7, 0)


def test_a_jacobian_counts_each_of_its_rows(meter):
    x = torch.zeros(5, 1, 2, 2, requires_grad=True)
    logits = meter(x)
    for k in range(3):
        logits[:, k].sum().backward(retain_graph=True)
    assert (meter.forwards, meter.backwards) == (5, 15)
    torch.autograd.functional.jacobian(meter, torch.zeros(1, 1, 2, 2))
    assert (meter.forwards, meter.backwards) == (6, 18)


def test_every_way_to_go_backwards_counts(meter):
    x = torch.zeros(4, 1, 2, 2, requires_grad=True)
    torch.autograd.grad(meter(x), x, torch.ones(4, 3))
    torch.autograd.grad(meter(x).logsumexp(1).mean(), x)
    meter(x).square().sum().backward()
    assert (meter.forwards, meter.backwards) == (12, 12)
    meter.reset()
    assert (meter.forwards, meter.backwards) == (0, 0)


def test_it_says_what_the_model_says(meter):
    x = torch.rand(3, 1, 2, 2)
    assert torch.equal(meter(x), meter.model(x))
    assert Meter(meter.model.eval()).training is False


def test_our_attacks_count_the_same(small, monkeypatch):
    # Two ways to count that know nothing of each other: the engine's own, and the one from outside.
    known = tasks(0.1, tuple(small.x.shape[1:]))
    seen: list[AttackResult] = []
    for contender in ours(known, small.x[0].numel(), 10):
        made = type(contender.run.__closure__[0].cell_contents)
        call = made.__call__

        def spied(self, *args, _call=call, **kwargs):
            seen.append(_call(self, *args, **kwargs))
            return seen[-1]

        meter = Meter(small.model)
        with monkeypatch.context() as patch:
            patch.setattr(made, "__call__", spied)
            contender.run(meter, small.x[:6], small.y[:6], small.targets()[:6] if contender.task.targeted else None, 0)
        assert meter.forwards == int(seen[-1].forwards.sum()), contender.attack
        assert meter.backwards == int(seen[-1].backwards.sum()), contender.attack


def test_quiet_puts_the_random_numbers_back():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002

    def work() -> tuple[float, float, float]:
        return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002

    drawn = []
    for _ in range(2):
        with quiet(3):
            drawn.append(work())
    with contextlib.suppress(KeyError), quiet(3):
        work()
        raise KeyError
    assert drawn[0] == drawn[1]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


def test_quiet_drops_prints_and_warnings(capsys):
    with quiet(0):
        print("noise")  # noqa: T201
        warnings.warn("noise", stacklevel=1)
    assert capsys.readouterr().out == ""


def test_time_is_taken_in_bare_passes(meter):
    x = torch.rand(8, 1, 2, 2)
    seconds, cpu = bare(meter.model, x)
    assert seconds > 0
    assert cpu > 0
    assert x.grad is None
    assert clock(x, lambda: x + 1)[2].equal(x + 1)
    lap = Lap(6.0, 3.0, 2.0, 0.5)
    assert (lap.ratio, lap.cpu_ratio) == (3.0, 6.0)
