"""The gates over every registered attack, every norm it is for, with and without a target."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gates
import nets
from steadygrad import registry
from steadygrad.attacks import ATTACKS, Attack
from steadygrad.threat import Threat

pytestmark = pytest.mark.slow

# Few steps: the gates compare, they do not attack.
SMALL: dict[str, dict[str, Any]] = {
    "random_noise": {"draws": 3},
    "bim": {"steps": 3},
    "pgd": {"steps": 3, "restarts": 2},
    "apgd": {"steps": 3, "restarts": 2},
    "fab": {"steps": 10, "targets": 2},
    "square": {"queries": 8},
    "jsma": {"gamma": 0.5},
    "carlini_wagner": {"search_steps": 2, "steps": 12},
    "deepfool": {"steps": 8},
    "super_deepfool": {"steps": 8},
    "ddn": {"steps": 30},
    "fmn": {"steps": 12},
    "sigma_zero": {"steps": 12},
    "sparse_swaps": {"steps": 24},
    "smallest": {"steps": 15},
    "universal": {"steps": 10},
    "standard": {"steps": 2, "queries": 4, "targets": 2},
}
EPS = {"linf": 0.03, "l2": 0.1, "l1": 0.2, "l0": 2.0}
# None, some and most of the trained digits fall within these.
RADII = {"linf": (0.0, 0.05, 0.3), "l2": (0.0, 0.4, 2.0), "l1": (0.0, 1.0, 5.0), "l0": (0.0, 2.0, 8.0)}
CASES = [(row.name, norm) for row in ATTACKS for norm in row.norms]
# One perturbation for a whole batch depends on the batch, and says so.
PER_SAMPLE = [(name, norm) for name, norm in CASES if getattr(ATTACKS[name].method, "per_sample", True)]
TARGETS = [None, "second-best", "random"]


def _attack(name: str) -> Attack:
    return ATTACKS[name].method(**SMALL.get(name, {}))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "norm"), PER_SAMPLE)
@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_a_batch_equals_its_samples(lively, kind, name, norm, target):
    model, x, y = lively(kind, count=5)
    attack, threat = _attack(name), Threat(norm, EPS[norm])
    index = torch.arange(len(x))

    def judged(x, y, index):
        return attack(model, x, y, threat, target=target, generator=gates.generator_at(index, 3))

    def raw(x, y, index):
        return attack.perturb(model, x, y, threat, target=target, generator=gates.generator_at(index, 3))

    gates.assert_batch_invariant(judged, x, y, index)
    gates.assert_batch_invariant(raw, x, y, index)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_results_lie_within_the_threat_and_are_what_they_say(lively, name, norm):
    model, x, y = lively(count=12)
    y = y.clone()
    y[0] = (y[0] + 1) % 3  # one clean mistake
    threat = Threat(norm, EPS[norm] * 2)
    for target in (None, "least-likely"):
        result = _attack(name)(model, x, y, threat, target=target)
        assert threat.allows(x, result.inputs).all()
        wrong = model(result.inputs).argmax(1) != y
        assert wrong[result.success].all()
        assert torch.equal(result.inputs[~result.success], x[~result.success])
        assert torch.isinf(result.distance[~result.success]).all()
        found = result.success & (result.distance > 0)
        torch.testing.assert_close(result.distance[found], threat.distance(result.inputs - x)[found])
    result = _attack(name)(model, x, y, threat)
    assert result.success[0]
    assert result.distance[0] == 0


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_raw_points_lie_within_the_threat_for_every_sample(lively, name, norm, target):
    model, x, y = lively(count=12)
    threat = Threat(norm, EPS[norm])
    points = _attack(name).perturb(model, x, y, threat, target=target)
    assert threat.allows(x, points).all()
    assert (points != x).flatten(1).any(1).all()
    assert not points.requires_grad


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_the_generator_decides(lively, name, norm):
    model, x, y = lively(count=4)
    attack, threat = _attack(name), Threat(norm, EPS[norm])

    def points(seed):
        return attack.perturb(model, x, y, threat, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(points(1), points(1))
    if name in ("random_noise", "pgd"):
        assert not torch.equal(points(1), points(2))


@pytest.mark.parametrize("target", [None, "random"])
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_nothing_is_left_behind(name, norm, target):
    model, x = nets.build("conv"), nets.inputs(3)
    y = torch.tensor([0, 1, 0])
    attack, threat = _attack(name), Threat(norm, EPS[norm])
    gates.assert_leaves_no_trace(
        model, lambda: attack(model, x, y, threat, target=target), inputs=[x, y], failing_at=(0, 1)
    )
    if ATTACKS[name].order:
        gates.assert_leaves_no_trace(
            model, lambda: attack.perturb(model, x, y, threat, target=target), inputs=[x, y], failing_at=(0,)
        )


@pytest.mark.parametrize("name", [row.name for row in ATTACKS])
def test_the_search_for_the_smallest_leaves_nothing_behind(name):
    model, x = nets.build("residual"), nets.inputs(2)
    norm = ATTACKS[name].norms[0]
    gates.assert_leaves_no_trace(
        model, lambda: _attack(name)(model, x, torch.tensor([0, 1]), Threat(norm)), inputs=[x], failing_at=(0, 1)
    )


@pytest.mark.parametrize("row", list(ATTACKS), ids=lambda row: row.name)
def test_rows_describe_their_methods(row):
    method = row.method()
    assert method.norms == row.norms
    assert registry.build("attack", **_split(registry.describe(method))) == method
    small = _attack(row.name)
    assert registry.build("attack", **_split(registry.describe(small))) == small
    assert row.soundness == "attack"
    assert row.order in (0, 1, 2)
    assert row.summary
    assert row.reference
    assert row.cost


def _split(described: dict[str, Any]) -> dict[str, Any]:
    return {"name": described.pop("name"), "settings": described}


@pytest.mark.parametrize("row", list(ATTACKS), ids=lambda row: row.name)
def test_the_order_of_derivatives_is_that_of_the_row(lively, row):
    model, x, y = lively(count=4)
    with gates.counted(model) as passes:
        _attack(row.name).perturb(model, x, y, Threat(row.norms[0], EPS[row.norms[0]]))
    assert (passes["backwards"] > 0) == (row.order > 0)


@pytest.mark.parametrize("row", [row for row in ATTACKS if row.order], ids=lambda row: row.name)
def test_a_stronger_threat_fools_more(digits, row):
    model, x, y = digits
    norm = row.norms[0]
    shares = [
        _attack(row.name)(model, x[:60], y[:60], Threat(norm, eps)).success.float().mean().item() for eps in RADII[norm]
    ]
    assert shares[0] < shares[1] < shares[2]


def test_the_gate_for_batches_can_fail():
    class Shared(nn.Module):
        def forward(self, x):
            return torch.stack([-(x * x.mean(0)).flatten(1).sum(1), x.flatten(1).sum(1)], 1)

    x = nets.inputs(3)
    attack = _attack("bim")
    with pytest.raises(AssertionError):
        gates.assert_batch_invariant(
            lambda x: attack.perturb(Shared(), x, torch.zeros(len(x)).long(), Threat("l2", 0.5)), x
        )
