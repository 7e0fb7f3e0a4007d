"""Mistakes that public attack libraries are known for, each shown not to be here."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steadygrad import data
from steadygrad.attacks import ATTACKS, BIM, FGSM, PGD
from steadygrad.threat import Threat, linf

NORMS = ("linf", "l2", "l1")
# What stays the same for a long attack and a short one is shown with short ones.
SHORT: dict[str, dict[str, Any]] = {
    "fab": {"steps": 10, "targets": 2},
    "square": {"queries": 8},
    "standard": {"steps": 3, "queries": 8, "targets": 2},
    "carlini_wagner": {"steps": 20},
}
EPS = {"linf": 0.06, "l2": 0.35, "l1": 0.9, "l0": 3.0}


class Scaled(nn.Module):
    """A model whose inputs and logits are multiplied by constants."""

    def __init__(self, model: nn.Module, *, inputs: float = 1.0, logits: float = 1.0) -> None:
        super().__init__()
        self.model, self.inputs, self.logits = model, inputs, logits

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x * self.inputs) * self.logits


@pytest.mark.slow
@pytest.mark.parametrize("row", list(ATTACKS), ids=lambda row: row.name)
def test_unsolved_samples_are_the_clean_inputs_not_black_images(digits, row):
    model, x, y = digits
    some = 0
    for norm in row.norms:
        for eps in (EPS[norm], None):
            result = row.method(**SHORT.get(row.name, {}))(model, x[:30], y[:30], Threat(norm, eps))
            failed = ~result.success
            assert torch.equal(result.inputs[failed], x[:30][failed])
            assert (result.distance[failed] == torch.inf).all()
            assert not torch.isnan(result.distance).any()
            if eps is not None:
                some += int(failed.sum())
    assert some


@pytest.mark.parametrize("norm", NORMS)
def test_small_changes_are_not_grown_to_the_radius(digits, norm):
    # One short step within a large ball stays as short as it is.
    model, x, y = digits
    points = BIM(steps=1, step=0.01).perturb(model, x[:20], y[:20], Threat(norm, EPS[norm]))
    assert (Threat(norm).distance(points - x[:20]) <= 0.01 * EPS[norm] * (1 + 1e-4) + 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", [FGSM(), BIM(steps=4), PGD(steps=4)], ids=lambda a: type(a).__name__)
def test_the_range_of_the_inputs_does_not_matter(digits, attack, norm):
    net, x, y = digits
    model, x, y = copy.deepcopy(net).double(), x[:60].double(), y[:60]
    wide = Scaled(model, inputs=1 / 255)
    small = attack(model, x, y, Threat(norm, EPS[norm]))
    large = attack(wide, x * 255, y, Threat(norm, EPS[norm] * 255, bounds=(0.0, 255.0)))
    assert 0 < small.success.sum() < 60
    assert torch.equal(small.success, large.success)
    torch.testing.assert_close(small.inputs * 255, large.inputs, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(small.distance * 255, large.distance, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_a_smallest_change_holds_in_another_batch_and_in_float64(digits, norm):
    model, x, y = digits
    result = PGD(steps=10)(model, x[:40], y[:40], Threat(norm))
    order = torch.randperm(40)
    again = model(torch.cat([result.inputs[order], x[:17]]))[:40].argmax(1) != y[:40][order]
    assert again.all()
    exact = copy.deepcopy(model).double()(result.inputs.double()).argmax(1) != y[:40]
    assert exact.float().mean() >= 0.95


def _accuracies(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> list[float]:
    runs = [PGD()(Scaled(model, logits=s), x, y, linf(eps)) for s in (1.0, 10.0, 100.0, 1000.0)]
    return [1 - run.success.float().mean().item() for run in runs]


def test_the_scale_of_the_logits_does_not_hide(digits):
    model, x, y = digits
    left = _accuracies(model, x, y, 0.08)
    assert 0.2 < left[0] < 0.8
    assert max(left) - min(left) < 0.01


def test_cross_entropy_is_hidden_by_the_scale(digits):
    # So that the test above can fail.
    model, x, y = digits
    left = [
        1 - PGD(loss="ce")(Scaled(model, logits=s), x, y, linf(0.08)).success.float().mean().item()
        for s in (1.0, 1000.0)
    ]
    assert left[1] > left[0] + 0.05


@pytest.mark.slow
def test_the_scale_of_the_logits_does_not_hide_on_mnist(data_root):
    train, test = (data.load("mnist", split=split) for split in ("train", "test"))
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    x, y = train.take(12000, seed=0).tensors()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for rows in torch.cat([torch.randperm(12000) for _ in range(3)]).split(128):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    x, y = test.take(200, seed=0).tensors()
    left = _accuracies(net.eval(), x, y, 0.1)
    assert 0.05 < left[0] < 0.9
    assert max(left) - min(left) < 0.01


@pytest.mark.parametrize("loss", ["margin", "dlr"])
def test_half_precision_loses_no_gradients(digits, loss):
    # A mean over the batch would underflow here: logits of a certain model, a batch of 200.
    net, x, y = digits
    shares, fooled = [], []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model = copy.deepcopy(net).to(dtype)
        result = PGD(steps=10, loss=loss)(model, x.to(dtype), y, linf(0.05))
        shares.append(result.zero_gradient.float().mean().item())
        fooled.append(result.success.float().mean().item())
    assert shares[1:] == [shares[0]] * 2
    assert max(fooled) - min(fooled) < 0.05


def test_samples_do_not_share_a_step(digits):
    # An L2 step normalized over the batch would shrink for samples with small gradients.
    model, x, y = digits
    points = FGSM().perturb(model, x[:20] * 0 + 0.5 + 0.01 * x[:20], y[:20], Threat("l2", 0.1))
    size = (points - (0.5 + 0.01 * x[:20])).flatten(1).norm(dim=1)
    torch.testing.assert_close(size, torch.full((20,), 0.1))
