"""Deep Defense against the paper written out, and its derivative through every step of DeepFool."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import gates
import nets
from oracles import deep_defense as oracle
from steadygrad import UsageError, derivatives, models
from steadygrad.attacks.deepfool_change import deepfool_change, relative_distance
from steadygrad.defenses import DeepDefense, State, deep_defense

SETTINGS: dict[str, Any] = {"weight": 2.0, "correct": 3.0, "wrong": 1.5, "limit": 0.3, "steps": 4, "overshoot": 0.02}


def _case(kind: str, count: int = 6) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network in float64 and labels of which some are right and some are wrong."""
    model, x = nets.still(nets.build(kind, dtype=torch.float64)), nets.inputs(count, dtype=torch.float64)
    y = model(x).argmax(1).detach()
    y[count // 2 :] = (y[count // 2 :] + 1) % 3
    return model, x, y


@pytest.mark.parametrize("center", [0.0, 0.3])
@pytest.mark.parametrize("kind", nets.KINDS)
def test_the_term_is_that_of_the_paper(kind, center):
    model, x, y = _case(kind)
    mine = DeepDefense(**SETTINGS, candidates=None, center=center).loss(model, x, y).parts["deep_defense"]
    expected = oracle.loss(model, x, y, **SETTINGS, center=center)
    assert float(mine) == pytest.approx(expected, rel=1e-5)
    if kind != "attention":  # which is almost affine: here several steps are taken
        one = oracle.loss(model, x, y, **{**SETTINGS, "steps": 1}, center=center)
        assert abs(one - expected) > 1e-4 * expected


def test_a_far_sample_does_not_outweigh_the_others():
    rho = torch.tensor([0.01, 0.199, 0.2, 0.201, 1e6], dtype=torch.float64, requires_grad=True)
    values = deep_defense._exp(20 * rho, 4.0)
    (slope,) = torch.autograd.grad(values.sum(), rho)
    values, rho = values.detach(), rho.detach()
    torch.testing.assert_close(values[:3], torch.exp(20 * rho[:3]))
    torch.testing.assert_close(slope[:3], 20 * torch.exp(20 * rho[:3]))
    # Value and slope go on where the exponential ends; from there a relative change counts alike at any distance.
    assert float(values[3]) == pytest.approx(math.exp(4) * (1 + 4 * math.log(1.005)))
    torch.testing.assert_close((slope * rho)[3:], torch.full((2,), 4 * math.exp(4), dtype=torch.float64))
    model, x, y = _case("conv")
    near, far = (float(DeepDefense(**{**SETTINGS, "limit": at}).loss(model, x, y).total.detach()) for at in (5.0, 0.01))
    assert near != far


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", nets.KINDS)
def test_the_weight_gradient_goes_through_every_step(kind, training):
    model, x, y = _case(kind)
    model.train(training)
    defense = DeepDefense(**SETTINGS)
    gates.assert_weight_gradient(lambda: defense.loss(model, x, y).total, model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet", "resnet18", "vit"])
def test_the_weight_gradient_of_real_architectures_equals_differences(name):
    shape, count = ((1, 28, 28), 3) if name == "lenet" else ((3, 16, 16), 2)
    model = models.build(name, shape, 4, seed=1).double().eval()
    x = nets.inputs(count, shape=shape, dtype=torch.float64)
    y = model(x).argmax(1).detach()
    y[-1] = (y[-1] + 1) % 4
    defense = DeepDefense(weight=1.0, correct=2.0, wrong=1.0, steps=3)
    gates.assert_weight_gradient(lambda: defense.loss(model, x, y).total, model, directions=3, rtol=1e-4)


@pytest.mark.parametrize("kind", nets.KINDS)
def test_choosing_first_gives_the_gradient_of_the_version_for_all_classes(kind):
    model, x, y = _case(kind)
    weights = list(model.parameters())

    def slope(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights) if g is not None])

    chosen = slope(DeepDefense(**SETTINGS, candidates=None).loss(model, x, y).total)
    every = slope(DeepDefense(**SETTINGS).loss(model, x, y).total)
    with derivatives.math_attention():
        whole = slope(_all_classes(model, x, y) + nn.functional.cross_entropy(model(x), y))
    torch.testing.assert_close(chosen, whole, rtol=1e-9, atol=1e-9 * float(whole.abs().max()))
    # Of three classes, two candidates are all.
    torch.testing.assert_close(every, whole, rtol=1e-9, atol=1e-9 * float(whole.abs().max()))


def _all_classes(model, x, y):
    """The term with second-order graphs through the differences of all classes: slow, and the same."""
    terms = []
    for n in range(len(x)):
        clean, total = x[n : n + 1], torch.zeros_like(x[n : n + 1])
        right = int(model(clean).argmax()) == int(y[n])
        for _ in range(SETTINGS["steps"]):
            point = (clean + (1 + SETTINGS["overshoot"]) * total).requires_grad_()
            logits = model(point)[0]
            predicted = int(logits.argmax())
            if (predicted != int(y[n])) == right:
                break
            here, rivals = (int(y[n]), [k for k in range(3) if k != int(y[n])]) if right else (predicted, [int(y[n])])
            steps = []
            for k in rivals:
                gap = logits[k] - logits[here]
                (w,) = torch.autograd.grad(gap, point, create_graph=True)
                steps.append((gap.abs() / w.norm(), gap.abs() / w.norm() ** 2 * w))
            total = total + min(steps, key=lambda s: float(s[0].detach()))[1]
        rho = (1 + SETTINGS["overshoot"]) * total.norm() / clean.norm()
        grown, limit = SETTINGS["wrong"] * rho, SETTINGS["limit"]
        far = math.exp(limit) * (1 + limit * torch.log(grown / limit))
        grown = torch.exp(grown) if float(grown.detach()) <= limit else far
        terms.append(torch.exp(-SETTINGS["correct"] * rho) if right else grown)
    return SETTINGS["weight"] * torch.stack(terms).mean()


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("kind", ["conv", "residual"])
def test_recomputing_changes_nothing_but_the_memory(kind, size):
    model, x, y = _case(kind)
    model.train()
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    weights = [p for p in model.parameters() if p.requires_grad]
    whole = DeepDefense(**SETTINGS)
    expected = torch.autograd.grad(whole.loss(model, x, y).total, weights)
    loss = replace(whole, recompute=size).loss(model, x, y).total
    assert [m.training for m in model.modules()] == [True] * len(list(model.modules()))
    for mine, theirs in zip(torch.autograd.grad(loss, weights), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_descending_the_term_pushes_the_boundary_away():
    model, x, y = _case("conv", 12)
    y = model(x).argmax(1).detach()
    defense = DeepDefense(weight=1.0, correct=10.0)
    before = relative_distance(deepfool_change(model, x, y).change, x).mean()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(20):
        optimizer.zero_grad()
        defense.loss(model, x, y).total.backward()
        optimizer.step()
    after = relative_distance(deepfool_change(model, x, y).change, x).mean()
    assert after > 1.2 * before


def test_a_flat_network_and_a_black_image_give_finite_losses():
    model, x, y = _case("mlp")
    x[0], y[0] = 0.0, (y[0] + 1) % 3
    with torch.no_grad():
        for parameter in model[1].parameters():
            parameter.zero_()
    loss = DeepDefense(**SETTINGS).loss(model, x, y).total
    assert torch.isfinite(loss)
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    assert all(bool(torch.isfinite(s).all()) for s in slopes)


def test_the_sample_counts_do_not_matter_and_passes_are_few():
    model, x, y = _case("conv")
    defense = DeepDefense(**{**SETTINGS, "steps": 1})
    with gates.counted(model) as passes:
        defense.loss(model, x, y, State())
    # Clean logits in training mode; one step of right and wrong samples together: two candidates, then the chosen.
    assert passes["forwards"] == 2
    assert passes["backwards"] == 2 + 1


def test_samples_at_rest_take_no_part_in_the_passes_with_a_graph():
    model, x, _ = _case("conv", 12)
    label = model(x).argmax(1)
    rows = {True: [], False: []}
    handle = model.register_forward_hook(lambda module, args, out: rows[torch.is_grad_enabled()].append((args[0], out)))
    # Without overshoot some steps end before the boundary and some behind it.
    deepfool_change(model, x, label, steps=4, overshoot=0.0, create_graph=True)
    handle.remove()
    labels = label
    for (looked, logits), (built, _) in zip(rows[False], rows[True][1:], strict=False):
        standing = logits.argmax(1) == labels
        assert built.equal(looked[standing])
        labels = labels[standing]
    assert len(rows[True][0][0]) == 12
    assert 0 < len(labels) < 12


def test_wrong_samples_rest_unless_they_are_led_to_their_label():
    model, x, y = _case("conv")
    right = model(x).argmax(1) == y
    assert 0 < right.sum() < len(y)
    rested, led = (deepfool_change(model, x, y, reach=reach, steps=30) for reach in (False, True))
    assert rested.right.equal(right)
    assert led.right.equal(right)
    assert not rested.change[~right].any()
    assert (led.change[~right].flatten(1).norm(dim=1) > 0).all()
    assert rested.change[right].equal(led.change[right])
    after = model(x + led.change).argmax(1) == y
    assert after.equal(~right)


def test_one_logit_is_not_enough():
    with pytest.raises(UsageError, match="K of at least 2"):
        deepfool_change(nn.Linear(2, 1), torch.rand(3, 2), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, "weight must be at least 0"),
        ({"weight": 1.0, "correct": 0.0}, "correct must be positive"),
        ({"weight": 1.0, "wrong": float("inf")}, "wrong must be positive and finite"),
        ({"weight": 1.0, "steps": 0}, "steps must be at least 1, got 0"),
        ({"weight": 1.0, "overshoot": 1.0}, r"overshoot must be within \[0, 1\)"),
        ({"weight": 1.0, "limit": 0.0}, "limit must be positive"),
        ({"weight": 1.0, "recompute": 0}, "recompute must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        DeepDefense(**settings)
