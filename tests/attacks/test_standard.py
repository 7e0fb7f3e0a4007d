"""The standard suite against its four algorithms written out, and what it says of its members."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gates
import nets
from oracles import apgd, fab, square
from steadygrad.attacks import PGD, Standard
from steadygrad.classifier import Classifier
from steadygrad.errors import UsageError
from steadygrad.threat import Threat

SMALL = Standard(steps=15, queries=150, targets=4)


def _hardened(digits) -> nn.Module:
    """The digits network trained on further with PGD."""
    import copy

    from steadygrad import data

    model = copy.deepcopy(digits[0])
    x, y = data.load("digits", split="train").tensors()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(64):
            points = PGD(steps=4).perturb(model, x[rows], y[rows], Threat("linf", 0.08))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(points), y[rows]).backward()
            optimizer.step()
    for parameter in model.parameters():
        parameter.grad = None
    return model


def _algorithms(model, x, y, eps, norm, steps, queries):
    """Which samples (N,) fall to the four, one after the other on those that stand, and the passes of it."""
    steps_of = {"steps": steps}
    with gates.counted(model) as spent:
        hit = model(x).argmax(1) != y
        for attack in (
            lambda x, y: apgd.fooled(model, x, y, eps, norm, **steps_of),
            lambda x, y: apgd.fooled_at_targets(model, x, y, eps, norm, targets=9, **steps_of),
            lambda x, y: fab.distances(model, x, y, norm, targets=9, eps=eps, **steps_of) <= eps,
            lambda x, y: square.fooled(model, x, y, eps, norm, queries=queries),
        ):
            left = (~hit).nonzero().squeeze(1)
            if len(left):
                hit[left] = attack(x[left], y[left])
    return hit, spent["samples"] + spent["samples_back"]


@pytest.mark.slow
@pytest.mark.parametrize("hardened", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.08), ("l2", 0.5)])
def test_the_verdict_is_that_of_the_algorithms_for_sixty_percent_of_their_passes(digits, hardened, norm, eps):
    model = _hardened(digits) if hardened else digits[0]
    x, y = digits[1][:100], digits[2][:100]
    theirs, budget = _algorithms(model, x, y, eps, norm, steps=50, queries=600)
    result = Standard(steps=50, queries=600)(model, x, y, Threat(norm, eps))
    assert 0.1 < theirs.float().mean() < 0.8
    assert abs(int(result.success.sum()) - int(theirs.sum())) <= 1
    assert int(result.forwards.sum() + result.backwards.sum()) <= 0.6 * budget


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_is_its_members_one_after_the_other(digits, norm):
    model, x, y = digits[0], digits[1][:60], digits[2][:60].clone()
    y[0] = (y[0] + 1) % 10
    threat = Threat(norm, {"linf": 0.08, "l2": 0.5, "l1": 1.5}[norm])
    suite = Standard(steps=15, queries=60, targets=3, optimism=None)
    result = suite(model, x, y, threat)
    broken_by = result.found_by
    seeds = torch.randint(2**62, (60,), generator=torch.Generator().manual_seed(0))
    stands, forwards, expected = torch.ones(60, dtype=torch.bool), torch.zeros(60, dtype=torch.int64), -torch.ones(60)
    for number, (_, attack) in enumerate(suite.members()):
        rows = stands.nonzero().squeeze(1)
        found = attack(model, x[rows], y[rows], threat, generator=seeds[rows])
        forwards[rows] += found.forwards
        expected[rows[found.success & (found.distance > 0)]] = number
        stands[rows[found.success]] = False
    assert torch.equal(result.success, ~stands)
    assert broken_by.tolist() == expected.tolist()
    assert torch.equal(result.forwards, forwards)
    assert broken_by[0] == -1
    assert result.success[0]


def test_masked_gradients_meet_all_queries_and_fall_to_square(digits):
    model, x, y = digits[0], digits[1][:40], digits[2][:40]

    class Quantized(nn.Module):
        def forward(self, z):
            return model(z + ((z * 8).round() / 8 - z).detach() - z + z.detach())

    suite = Standard(steps=10, queries=200, targets=3)
    result = suite(Quantized(), x, y, Threat("linf", 0.15))
    broken_by = result.found_by
    names = [name for name, _ in suite.members()]
    assert (broken_by == names.index("square")).sum() > 0.3 * len(x)
    assert result.zero_gradient.float().mean() > 0.9
    stands = ~result.success
    gradients = Standard(steps=10, queries=1, targets=3)(Quantized(), x, y, Threat("linf", 0.15))
    assert (result.forwards - gradients.forwards)[stands].float().mean() > 150


def test_cross_entropy_saturates_and_the_suite_does_not(digits):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]
    sharp = Classifier(nn.Sequential(model, nn.Linear(10, 10, bias=False)), classes=10)
    with torch.no_grad():
        sharp.module[1].weight.copy_(1000 * torch.eye(10))
    threat = Threat("linf", 0.08)
    plain, scaled = (SMALL(m, x, y, threat) for m in (model, sharp))
    assert abs(int(plain.success.sum()) - int(scaled.success.sum())) <= 1


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_any_number_of_classes_and_tabular_inputs(classes, norm):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, classes))
    x = torch.rand(10, 20)
    with torch.no_grad():
        net[2].bias -= net(x).mean(0)
    y = net(x).argmax(1)
    threat = Threat(norm, {"linf": 0.1, "l2": 0.4, "l1": 1.5}[norm])
    result = SMALL(net, x, y, threat)
    broken_by = result.found_by
    assert result.success.any()
    assert ((broken_by >= 0) == result.success).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_type_of_number(digits, dtype):
    import copy

    model, x, y = copy.deepcopy(digits[0]).to(dtype), digits[1][:30].to(dtype), digits[2][:30]
    result = SMALL(model, x, y, Threat("linf", 0.1))
    assert result.inputs.dtype == dtype
    wide = SMALL(digits[0], digits[1][:30], y, Threat("linf", 0.1))
    # The judge forgives half-precision inputs their coarser rounding, so a few more may fall.
    assert -1 <= int(result.success.sum()) - int(wide.success.sum()) <= 4


def test_targets_and_radii_belong_to_samples(digits):
    model, x, y = digits[0], digits[1][:30], digits[2][:30]
    target = (y + 1) % 10
    eps = torch.where(torch.arange(30) % 2 == 0, 0.001, 0.35)
    result = SMALL(model, x, y, Threat("linf", eps), target=target)
    assert not result.success[::2].any()
    assert result.success[1::2].float().mean() > 0.7
    assert (model(result.inputs).argmax(1) == target)[result.success].all()


def test_a_batch_equals_its_samples_down_to_the_member(lively):
    model, x, y = lively("conv", count=5)
    suite, threat = Standard(steps=4, queries=140, targets=2), Threat("linf", 0.02)

    def call(x, y, index):
        return suite(model, x, y, threat, generator=gates.generator_at(index))

    gates.assert_batch_invariant(call, x, y, torch.arange(5))
    assert 0 < call(x, y, torch.arange(5)).success.sum() < 5


def test_the_model_is_left_alone_by_every_member():
    model, x = nets.build("conv"), nets.inputs(3)
    y, suite = model(x).argmax(1).detach(), Standard(steps=2, queries=4, targets=2)
    for after in (0, 5, 12, 25):
        gates.assert_leaves_no_trace(
            model, lambda: suite(model, x, y, Threat("l2", 1e-5)), inputs=[x], failing_at=(after,)
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"steps": 0}, "steps must be at least 1, got 0"), ({"optimism": -1.0}, "optimism must be positive")],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Standard(**settings)


def test_without_a_radius_the_member_of_the_nearest_input_is_told(digits):
    model, x, y = digits[0], digits[1][:12], digits[2][:12].clone()
    y[0] = (y[0] + 1) % 10
    result = Standard(steps=5, queries=20, targets=2)(model, x, y, Threat("linf"))
    assert result.success.all()
    assert ((result.found_by >= 0) == (result.distance > 0)).all()
    assert result.found_by[0] == -1
    assert result.found_by.max() in range(4)
