"""Universal perturbations: one for all, found on some inputs, good for others."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import gates
from steadygrad.attacks import PGD, Universal
from steadygrad.classifier import Classifier
from steadygrad.errors import UsageError
from steadygrad.threat import Threat, l2, linf

EPS = {"linf": 0.15, "l2": 1.0}


def _fooled(model: nn.Module, x: Tensor, y: Tensor, change: Tensor) -> float:
    return (model((x + change).clamp(0, 1)).argmax(1) != y).float().mean().item()


@pytest.mark.parametrize(("norm", "best"), [("linf", lambda w: w.sign()), ("l2", lambda w: w / w.norm())])
def test_for_one_class_of_a_linear_model_the_best_perturbation_is_its_weight(norm, best):
    model = nn.Linear(12, 2).double()
    x = 0.4 + 0.2 * torch.rand(20, 12, dtype=torch.float64)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([50.0, 0.0]))
    found = Universal().fit(model, x, torch.zeros(20).long(), Threat(norm, 0.2))
    expected = 0.2 * best((model.weight[1] - model.weight[0]).detach())
    torch.testing.assert_close(found, expected[None])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("settings", [{}, {"loss": "ce"}, {"loss": "dlr"}, {"batch_size": 32}, {"clip": 2.0}], ids=str)
def test_one_perturbation_fools_seen_and_unseen_inputs(digits, norm, settings):
    model, x, y = digits
    threat = Threat(norm, EPS[norm])
    found = Universal(**settings).fit(model, x[:120], y[:120], threat)
    assert found.shape == (1, 1, 8, 8)
    assert threat.allows(torch.full_like(found, 0.5), 0.5 + found).all()
    noise = threat.project(torch.randn(1, 1, 8, 8).sign() * EPS[norm])
    for rows in (slice(0, 120), slice(120, 200)):
        share = _fooled(model, x[rows], y[rows], found)
        assert share > _fooled(model, x[rows], y[rows], noise) + 0.15
        assert share > _fooled(model, x[rows], y[rows], 0 * found) + 0.2


def test_the_attack_adds_the_same_change_to_every_sample(digits):
    model, x, y = digits
    x = 0.3 + 0.4 * x[:50]  # far from the bounds, so that none is clipped
    y = model(x).argmax(1)
    points = Universal().perturb(model, x, y, linf(0.1))
    change = points - x
    torch.testing.assert_close(change, change[:1].expand_as(change))
    result = Universal()(model, x, y, linf(0.1))
    found = result.success & (result.distance > 0)
    assert found.sum() > 5
    change = (result.inputs - x)[found]
    torch.testing.assert_close(change, change[:1].expand_as(change))


def test_it_is_weaker_than_one_change_for_each(digits):
    model, x, y = digits
    one, each = (a(model, x, y, linf(0.1)).success.float().mean() for a in (Universal(), PGD()))
    assert one < each - 0.1


def test_batches_matter_by_nature_and_the_class_says_so(digits):
    model, x, y = digits
    assert Universal.per_sample is False
    with pytest.raises(AssertionError):
        gates.assert_batch_invariant(lambda x, y: Universal().perturb(model, x, y, linf(0.1)), x[:6], y[:6])


def test_the_order_of_the_samples_does_not_matter(digits):
    net, x, y = digits
    model, x, y = copy.deepcopy(net).double(), x[:40].double(), y[:40]
    order = torch.randperm(40)
    found = Universal().fit(model, x, y, l2(1.0))
    torch.testing.assert_close(Universal().fit(model, x[order], y[order], l2(1.0)), found)


def test_a_radius_for_each_sample_scales_the_one_change(digits):
    model, x, y = digits
    x, eps = 0.3 + 0.4 * x[:20], torch.linspace(0.01, 0.2, 20)
    change = Universal().perturb(model, x, y[:20], linf(eps)) - x
    way = change / eps.view(-1, 1, 1, 1)
    torch.testing.assert_close(way, way[:1].expand_as(way), rtol=1e-3, atol=1e-3)
    smallest = Universal(steps=5)(model, x, y[:20], linf())
    assert smallest.success.all()
    assert (model(smallest.inputs).argmax(1) != y[:20]).all()


def test_a_target_is_reached(digits):
    model, x, y = digits
    goal = torch.full_like(y, 3)
    for loss in ("margin", "ce"):
        found = Universal(loss=loss).fit(model, x, y, linf(0.3), target=goal)
        before, after = ((model((x + d).clamp(0, 1)).argmax(1) == 3).float().mean() for d in (0 * found, found))
        assert after > before + 0.4


def test_a_table_two_classes_and_float64():
    model = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 2)).double()
    x = torch.rand(30, 7, dtype=torch.float64)
    y = model(x).argmax(1)
    found = Universal(steps=10).fit(model, x, y, l2(0.5))
    assert found.shape == (1, 7)
    assert found.dtype == torch.float64
    assert found.norm() == pytest.approx(0.5)


def test_half_precision_finds_the_same(digits):
    net, x, y = digits
    threat = linf(0.15)
    plain = Universal().fit(net, x, y, threat)
    half = Universal().fit(copy.deepcopy(net).bfloat16(), x.bfloat16(), y, threat)
    assert half.dtype == torch.bfloat16
    assert abs(_fooled(net, x, y, half.float()) - _fooled(net, x, y, plain)) < 0.08


def test_passes_are_one_forward_and_one_backward_per_step(digits):
    model, x, y = digits
    result = Universal(steps=7)(model, x[:20], y[:20], linf(0.1))
    tried = result.distance > 0
    assert (result.backwards[tried] == 7).all()
    # The clean look and the last one, and the judge's two.
    assert torch.equal(result.forwards[tried], 7 + 2 + 2 * result.success[tried].long())
    assert (result.backwards[~tried] == 0).all()
    other = copy.deepcopy(model)
    with gates.counted(other) as passes:
        Universal(steps=7, batch_size=8).fit(other, x[:20], y[:20], linf(0.1))
    assert (passes["forwards"], passes["backwards"], passes["samples"]) == (7, 7, 8 * 5 + 4 * 2)


def test_fitting_leaves_nothing_behind(digits):
    net, x, y = digits
    model = copy.deepcopy(net)
    gates.assert_leaves_no_trace(
        model, lambda: Universal(steps=3).fit(model, x[:9], y[:9], linf(0.1)), inputs=[x, y], failing_at=(0, 2)
    )


@pytest.mark.parametrize("eps", [None, torch.full((20,), 0.1)])
def test_a_fit_needs_one_radius(digits, eps):
    model, x, y = digits
    with pytest.raises(UsageError, match="one perturbation for all needs one radius for all"):
        Universal().fit(model, x[:20], y[:20], linf(eps))


def test_a_fit_checks_what_it_is_given(digits):
    model, x, y = digits
    with pytest.raises(UsageError, match="Universal works for linf, l2, not for l1"):
        Universal().fit(model, x, y, Threat("l1", 0.1))
    with pytest.raises(UsageError, match=r"target must hold labels 0\.\.9, got 10\.\.10"):
        Universal().fit(model, x, y, linf(0.1), target=torch.full_like(y, 10))
    bounded = Classifier(model, bounds=(-1.0, 1.0))
    with pytest.raises(UsageError, match="but the classifier"):
        Universal().fit(bounded, x, y, linf(0.1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"step": 0.0}, "step must be positive"),
        ({"loss": "kl"}, "there is no loss 'kl'"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Universal(**settings)
