"""Activations as people write them: smoothed with the right curvature, or refused with the name of the layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import steadygrad as sg
from oracles import differences

BETA = 5.0


class _Act(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _assigned(x):
    x = x.clone()
    x[x < 0] = 0
    return x


class _Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, slope):
        return slope * (ctx.saved_tensors[0] > 0)


SMOOTHED = {
    "ReLU": nn.ReLU(),
    "ReLU in place": nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6(),
    "LeakyReLU": nn.LeakyReLU(0.1),
    "PReLU": nn.PReLU(),
    "PReLU per channel": nn.PReLU(8),
    "RReLU": nn.RReLU(),
    "Threshold": nn.Threshold(0.0, 0.0),
    "Threshold with a jump": nn.Threshold(0.1, -0.2),
    "Hardtanh": nn.Hardtanh(),
    "Hardsigmoid": nn.Hardsigmoid(),
    "Hardswish": nn.Hardswish(),
    "Hardshrink": nn.Hardshrink(),
    "Softshrink": nn.Softshrink(),
    "ELU": nn.ELU(),
    "ELU with a kink": nn.ELU(0.3),
    "SELU": nn.SELU(),
    "CELU": nn.CELU(0.5),
    "MaxPool1d": nn.Sequential(nn.Unflatten(1, (1, 8)), nn.MaxPool1d(2, 1, 1), nn.Flatten(), nn.Linear(9, 8)),
    "torch.relu": torch.relu,
    "torch.relu_": lambda v: torch.relu_(v.clone()),
    "F.relu": F.relu,
    "F.relu6": F.relu6,
    "F.leaky_relu": F.leaky_relu,
    "F.prelu": lambda v: F.prelu(v, torch.tensor([0.2], dtype=v.dtype)),
    "F.rrelu": F.rrelu,
    "F.rrelu in place": lambda v: F.rrelu(v.clone(), inplace=True),
    "F.threshold": lambda v: F.threshold(v, 0.0, 0.0),
    "F.threshold in place": lambda v: F.threshold(v.clone(), 0.0, 0.0, True),
    "F.hardtanh": lambda v: F.hardtanh(v, -0.5, 0.5),
    "F.hardsigmoid": F.hardsigmoid,
    "F.hardswish": F.hardswish,
    "F.softshrink": F.softshrink,
    "torch.ops": torch.ops.aten.relu.default,
    "clamp": lambda v: v.clamp(min=0),
    "clamp of both": lambda v: torch.clamp(v, -0.3, 0.3),
    "clamp above": lambda v: v.clamp(max=0.2),
    "clamp by tensors": lambda v: v.clamp(v.new_zeros(()), v.new_ones(())),
    "clamp in place": lambda v: v.clone().clamp_(0),
    "clamp_min": lambda v: torch.clamp_min(v, 0),
    "clamp_max": lambda v: v.clamp_max(0.1),
    "clip": lambda v: v.clip(0, 6),
    "abs": torch.abs,
    "built-in abs": abs,
    "maximum": lambda v: torch.maximum(v, v.new_zeros(())),
    "minimum": lambda v: torch.minimum(v, 0.5 * v),
    "max of two": lambda v: torch.max(v, torch.zeros_like(v)),
    "min of two": lambda v: v.min(-v),
    "fmax": lambda v: torch.fmax(v, v * 0.1),
    "maxout": lambda v: v.view(-1, 4, 2).amax(2).repeat(1, 2),
    "max over one": lambda v: v.view(-1, 4, 2).max(2).values.repeat(1, 2),
    "where": lambda v: torch.where(v > 0, v, 0.0),
    "where, turned": lambda v: torch.where(v <= 0, 0.1 * v, v),
    "where, negated": lambda v: torch.where(~(v > 0), 0.0, v),
    "where, method": lambda v: v.where(v > 0, 0.0),
    "times a comparison": lambda v: v * (v > 0),
    "a comparison times": lambda v: (v > 0) * v,
    "times a float comparison": lambda v: v * (v > 0).double(),
    "times a cast comparison": lambda v: v * (v > 0).type_as(v),
    "masked_fill": lambda v: v.masked_fill(v < 0, 0.0),
}

REFUSED = {
    "sign": lambda v: v * v.sign(),
    "round": lambda v: v + v.round(),
    "an assignment": _assigned,
    "two comparisons": lambda v: v * ((v > -0.5) & (v < 0.5)),
    "an own autograd function": _Custom.apply,
}


def _networks(act):
    torch.manual_seed(0)
    act = act if isinstance(act, nn.Module) else _Act(act)
    alone = nn.Sequential(nn.Linear(12, 8), act, nn.Linear(8, 3))
    beside = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 8), nn.Sequential(act), nn.Linear(8, 3))
    return {"alone": alone.double().eval(), "beside a ReLU": beside.double().eval()}


@pytest.mark.parametrize("name", SMOOTHED)
def test_curvature_is_that_of_differences_of_gradients(name):
    x, target = torch.rand(4, 12, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    saliency = sg.attributions.Saliency()
    for model in _networks(SMOOTHED[name]).values():
        smooth = sg.smooth(model, BETA)
        saliency.require_curvature(smooth, x, target)
        way = torch.randn_like(x)

        def slopes(inputs, model=smooth):  # by differences of values: no derivative is asked for
            return differences.gradient(lambda points: model(points).gather(1, target[:, None])[:, 0], inputs)

        changes = (slopes(x + 1e-3 * way) - slopes(x - 1e-3 * way)) / 2e-3
        leaf = x.clone().requires_grad_()
        maps = saliency(smooth, leaf, target, create_graph=True)
        torch.testing.assert_close(maps, slopes(x), rtol=1e-4, atol=1e-6)
        # The Hessian is symmetric: its product with `way` is the gradient of the maps along it.
        (product,) = torch.autograd.grad((maps * way).sum(), leaf)
        torch.testing.assert_close(product, changes, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", SMOOTHED)
def test_a_sharper_one_comes_to_the_original(name):
    x = torch.rand(4, 12, dtype=torch.float64)
    for model in _networks(SMOOTHED[name]).values():
        far, near = (float((sg.smooth(model, beta)(x) - model(x)).detach().abs().max()) for beta in (5.0, 1e5))
        assert near < 1e-3
        assert far > near or far == near == 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_stays_flat_is_refused_with_the_name_of_its_layer(name):
    x, target = torch.rand(4, 12, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    for place, model in _networks(REFUSED[name]).items():
        layer = "1 " if place == "alone" else "3.0 "
        with pytest.raises(sg.UsageError, match=f"in {layer}.*_Act.*no smooth form of") as error:
            sg.attributions.Saliency().require_curvature(sg.smooth(model, BETA), x, target)
        assert "sg.smooth" not in str(error.value)


def test_a_rectifier_with_drawn_slopes_draws_in_training_too():
    act, x = nn.RReLU(0.1, 0.9).train(), torch.full((1, 500), -2.0)
    torch.manual_seed(0)
    slopes = sg.smooth(act, 100.0)(x) / x
    assert 0.1 <= float(slopes.min()) < 0.2
    assert 0.8 < float(slopes.max()) <= 0.9


def test_a_shared_layer_is_named_once():
    act = nn.PReLU()
    model = nn.Sequential(nn.Linear(6, 6), act, nn.Linear(6, 6), act, nn.Linear(6, 3))
    with pytest.raises(sg.UsageError, match=r"prelu in 1 \(PReLU\); its"):
        sg.attributions.Saliency().require_curvature(model, torch.rand(4, 6), torch.tensor([0, 1, 2, 0]))
