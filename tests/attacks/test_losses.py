"""What attacks ascend, against the formulas written out per sample, and what counts as wrong."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from steadygrad.attacks.losses import attack_loss, cross_entropy, dlr, is_adversarial, margin
from steadygrad.errors import UsageError

CLASSES = (2, 3, 4, 7)
NAMES = ("soft", "margin", "dlr", "ce")


def _logits(classes: int, count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    logits = 3 * torch.randn(count, classes, dtype=torch.float64)
    y = torch.arange(count) % classes
    return logits, y, (y + 1) % classes


def _right(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions that are still right, with the least likely class as the target: where attacks begin."""
    logits, _, _ = _logits(classes)
    return logits, logits.argmax(1), logits.argmin(1)


def _margin(z: list[float], y: int, target: int | None) -> float:
    label = y if target is None else target
    others = max(v for k, v in enumerate(z) if k != label)
    return others - z[label] if target is None else z[label] - others


def _cross_entropy(z: list[float], y: int, target: int | None) -> float:
    label = y if target is None else target
    value = math.log(sum(math.exp(v - max(z)) for v in z)) + max(z) - z[label]
    return value if target is None else -value


def _dlr(z: list[float], y: int, target: int | None) -> float:
    if len(z) == 2:
        return _margin(z, y, target)
    down = sorted(z, reverse=True)
    if target is None:
        return -(z[y] - max(v for k, v in enumerate(z) if k != y)) / (down[0] - down[2])
    pair = down[2:4] if len(z) > 3 else down[1:3]
    return -(z[y] - z[target]) / (down[0] - sum(pair) / 2)


def _soft(z: list[float], y: int, target: int | None) -> float:
    scale = (max(z) - sum(z) / len(z)) / 8
    return scale * _cross_entropy([v / scale for v in z], y, target)


FORMULAS = {"soft": _soft, "margin": _margin, "dlr": _dlr, "ce": _cross_entropy}


@pytest.mark.parametrize("shift", [0.0, -100.0, 100.0])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("name", NAMES)
def test_losses_equal_their_formulas_wherever_the_logits_lie(name, classes, targeted, shift):
    logits, y, target = _logits(classes)
    values = attack_loss(name, logits + shift, y, target if targeted else None, None)
    expected = [
        FORMULAS[name](row, int(label), int(aim) if targeted else None)
        for row, label, aim in zip((logits + shift).tolist(), y, target)
    ]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("logits", [[5.0, 5.0], [-3.0, -3.0, -3.0], [7.0, 7.0, 1.0]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_logits_have_a_gradient(name, logits, dtype):
    # A tie is not yet wrong, and in half precision it is common: an attack must not get stuck there.
    leaf = torch.tensor([logits], dtype=dtype, requires_grad=True)
    values = attack_loss(name, leaf, torch.tensor([0]), None, None)
    (slope,) = torch.autograd.grad(values.sum(), leaf)
    assert torch.isfinite(values).all()
    assert torch.isfinite(slope).all()
    assert slope[0, 0] < 0 < slope[0, 1]


def test_kl_is_the_divergence_from_the_clean_prediction():
    clean, y, _ = _logits(4)
    logits = clean + torch.randn_like(clean)
    p, q = clean.softmax(1), logits.softmax(1)
    torch.testing.assert_close(attack_loss("kl", logits, y, None, clean), (p * (p.log() - q.log())).sum(1))
    torch.testing.assert_close(attack_loss("kl", clean, y, None, clean), torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("name", NAMES[1:])
def test_losses_rise_towards_success(name, classes, targeted):
    logits, y, target = _right(classes)
    aim = target if targeted else None
    label, sign = (target, 1.0) if targeted else (y, -1.0)
    moved = logits.scatter_add(1, label[:, None], torch.full((6, 1), sign * 0.05, dtype=torch.float64))
    assert (attack_loss(name, moved, y, aim, None) > attack_loss(name, logits, y, aim, None)).all()


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("classes", CLASSES)
def test_the_slope_of_soft_points_towards_success(classes, targeted):
    # Its temperature is a constant of the point, so the slope counts and not the value elsewhere.
    logits, y, target = _right(classes)
    leaf = logits.requires_grad_()
    attack_loss("soft", leaf, y, target if targeted else None, None).sum().backward()
    slope = leaf.grad.gather(1, (target if targeted else y)[:, None])
    assert (slope > 0).all() if targeted else (slope < 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["soft", "margin", "dlr", "ce", "kl"])
def test_half_precision_is_taken_to_float32(name, dtype):
    logits, y, _ = _logits(5)
    low = logits.to(dtype)
    clean = low.flip(0)
    values = attack_loss(name, low, y, None, clean)
    assert values.dtype == torch.float32
    assert torch.equal(values, attack_loss(name, low.float(), y, None, clean.float()))


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", ["soft", "margin", "dlr"])
@pytest.mark.parametrize("classes", CLASSES)
def test_the_scale_of_the_logits_leaves_the_direction(classes, name, targeted):
    logits, y, target = _right(classes)
    directions = []
    for scale in (1.0, 1000.0):
        leaf = logits.float().requires_grad_()
        value = attack_loss(name, leaf * scale, y, target if targeted else None, None)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        assert slope.flatten(1).any(1).all()
        directions.append(slope / slope.norm(dim=1, keepdim=True))
    torch.testing.assert_close(directions[0], directions[1], atol=1e-5, rtol=1e-5)


def test_cross_entropy_of_a_certain_model_has_no_direction_in_float32():
    # Why it is not the default.
    leaf = torch.tensor([[1000.0, 0.0, -50.0]], requires_grad=True)
    y = torch.tensor([0])
    assert not torch.autograd.grad(cross_entropy(leaf, y).sum(), leaf)[0].any()
    assert torch.autograd.grad(margin(leaf, y).sum(), leaf)[0].any()
    assert torch.autograd.grad(dlr(leaf, y).sum(), leaf)[0].any()


@pytest.mark.parametrize("shift", [0.0, -100.0])
def test_what_is_adversarial(shift):
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 2.0, 2.0]]) + shift
    y = torch.zeros(4, dtype=torch.int64)
    assert is_adversarial(logits, y).tolist() == [False, True, False, True]
    assert is_adversarial(logits, y, torch.ones(4, dtype=torch.int64)).tolist() == [False, True, False, False]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_logits_that_are_not_finite_are_wrong_and_reach_no_target(bad, place):
    logits = torch.tensor([[5.0, 0.0, 1.0]])
    logits[0, place] = bad
    assert is_adversarial(logits, torch.tensor([0])).all()
    assert not is_adversarial(logits, torch.tensor([0]), torch.tensor([1])).any()


def test_ties_of_all_logits_give_finite_losses_and_slopes():
    leaf = torch.zeros(2, 5, requires_grad=True)
    for name in NAMES:
        values = attack_loss(name, leaf, torch.tensor([0, 1]), None, None)
        assert torch.isfinite(values).all()


def test_unknown_losses_are_refused():
    logits, y, _ = _logits(3)
    with pytest.raises(UsageError, match="no attack loss 'margn'; did you mean 'margin'"):
        attack_loss("margn", logits, y, None, None)


def test_kl_refuses_a_target():
    logits, y, target = _logits(3)
    with pytest.raises(UsageError, match="not to a target"):
        attack_loss("kl", logits, y, target, logits)
