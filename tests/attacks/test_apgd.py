"""APGD against the algorithm written out, in what it finds, what it costs and what it accepts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gates
import nets
from oracles import apgd as oracle
from oracles import apgd_l1
from steadygrad.attacks import APGD, PGD
from steadygrad.attacks.apgd import _checkpoints, _sparse
from steadygrad.errors import UsageError
from steadygrad.threat import Threat

EPS = {"linf": 0.08, "l2": 0.5, "l1": 1.5}


def _passes(result):
    return int(result.forwards.sum() + result.backwards.sum())


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_the_verdict_is_that_of_the_algorithm_for_fewer_passes(digits, norm, loss):
    model, x, y = digits[0], digits[1][:100], digits[2][:100]
    with gates.counted(model) as spent:
        theirs = oracle.fooled(model, x, y, EPS[norm], norm, name=loss, steps=40)
    result = APGD(steps=40, loss=loss)(model, x, y, Threat(norm, EPS[norm]))
    assert 0.2 < theirs.float().mean() < 0.9
    assert abs(int(result.success.sum()) - int(theirs.sum())) <= 1
    assert _passes(result) < 0.9 * (spent["samples"] + spent["samples_back"])


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_dlr_finds_what_the_algorithm_finds(digits, norm):
    model, x, y = digits[0], digits[1][:100], digits[2][:100]
    theirs = oracle.fooled_at_targets(model, x, y, EPS[norm], norm, targets=9, steps=30)
    found = APGD(steps=30, loss="dlr-targets")(model, x, y, Threat(norm, EPS[norm])).success
    assert abs(int(found.sum()) - int(theirs.sum())) <= 1


@pytest.mark.slow
def test_l1_finds_what_the_algorithm_finds(digits):
    model, x, y = digits
    theirs = apgd_l1.fooled(model, x, y, EPS["l1"], steps=100, loss="ce")
    found = APGD(loss="ce")(model, x, y, Threat("l1", EPS["l1"])).success
    assert 0.3 < theirs.float().mean() < 0.9
    assert found.sum() >= theirs.sum() - 2


def test_checkpoints_are_those_of_the_paper():
    # p = 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 for 100 steps.
    assert list(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99] == oracle.checkpoints(100)
    assert _checkpoints(1) == {}


def test_a_resisting_sample_pays_one_forward_and_one_backward_per_step():
    model, x = nets.build("mlp"), nets.inputs(4)
    y = model(x).argmax(1)
    result = APGD(steps=7, restarts=2)(model, x, y, Threat("linf", 1e-6))
    assert not result.success.any()
    assert result.backwards.tolist() == [14] * 4
    # One look at the clean input and one at the last point of each start.
    assert result.forwards.tolist() == [14 + 1 + 2] * 4


@pytest.mark.parametrize(("classes", "runs"), [(2, 1), (3, 2), (12, 4)])
def test_each_run_of_the_targeted_loss_aims_at_another_class(classes, runs):
    model, x = nets.build("mlp", classes=classes), nets.inputs(3)
    y = model(x).argmax(1)
    result = APGD(steps=5, loss="dlr-targets", targets=4)(model, x, y, Threat("linf", 1e-6))
    assert result.backwards.tolist() == [5 * runs] * 3


def test_solved_samples_leave(digits):
    model, x, y = digits
    threat = Threat("linf", 0.3)
    result = APGD(steps=50)(model, x, y, threat)
    assert result.success.float().mean() > 0.95
    assert result.backwards.float().mean() < 10


def test_restarts_and_targets_never_lose_a_sample(digits):
    model, x, y = digits
    threat = Threat("linf", 0.08)
    one, three = (APGD(steps=4, restarts=r)(model, x, y, threat).success for r in (1, 3))
    assert (three | ~one).all()
    few, many = (APGD(steps=4, loss="dlr-targets", targets=t)(model, x, y, threat).success for t in (1, 9))
    assert (many | ~few).all()
    assert many.sum() > few.sum()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_is_at_least_as_strong_as_fixed_steps(digits, norm):
    model, x, y = digits[0], digits[1][:100], digits[2][:100]
    threat = Threat(norm, EPS[norm])
    ours, fixed = (a(model, x, y, threat).success.sum() for a in (APGD(40, loss="dlr-targets"), PGD(40)))
    assert ours >= fixed


@pytest.mark.parametrize("loss", ["dlr", "dlr-targets"])
def test_dlr_does_not_depend_on_the_scale_of_the_logits(digits, loss):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]

    class Scaled(nn.Module):
        def forward(self, z):
            return 1000 * model(z)

    plain, scaled = (APGD(15, loss=loss)(m, x, y, Threat("linf", 0.08)) for m in (model, Scaled()))
    assert abs(int(plain.success.sum()) - int(scaled.success.sum())) <= 1
    assert not scaled.zero_gradient.any()


@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr-targets"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_targets_are_reached(digits, norm, loss):
    model, x, y = digits[0], digits[1][:30], digits[2][:30]
    target = (y + 1) % 10
    result = APGD(30, loss=loss)(model, x, y, Threat(norm, 6 * EPS[norm]), target=target)
    assert result.success.float().mean() > 0.8
    assert (model(result.inputs).argmax(1) == target)[result.success].all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_radii_belong_to_samples(digits, norm):
    model, x, y = digits[0], digits[1][:40], digits[2][:40]
    eps = torch.where(torch.arange(40) % 2 == 0, 0.0, EPS[norm])
    mixed = APGD(15)(model, x, y, Threat(norm, eps))
    alone = APGD(15)(model, x, y, Threat(norm, EPS[norm]))
    assert torch.equal(mixed.success[1::2], alone.success[1::2])
    assert (mixed.distance[::2][mixed.success[::2]] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_any_type_of_number_and_tabular_inputs(dtype, norm):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4)).to(dtype)
        x = torch.rand(8, 20).to(dtype)
    y = net(x).argmax(1)
    result = APGD(10, loss="dlr")(net, x, y, Threat(norm, 4 * EPS[norm]))
    assert result.inputs.dtype == dtype
    assert result.success.any()
    assert not result.zero_gradient.any()


def test_sparse_steps_move_the_entries_of_largest_slope():
    way = _sparse(torch.tensor([[3.0, -1.0, 2.0, 0.5], [1.0, 0.0, 0.0, 0.0]]), torch.tensor([2.0, 3.0]))
    assert way.tolist() == [[0.5, 0.0, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"targets": 0}, "targets must be at least 1, got 0"),
        ({"loss": "kl"}, "kl"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        APGD(**settings)
