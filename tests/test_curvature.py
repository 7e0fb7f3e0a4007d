"""What has no second derivative, or one that leaves jumps of the gradient out, is refused with its name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nets
from steadygrad.curvature import require_curvature
from steadygrad.errors import UsageError
from steadygrad.smoothing import smooth


def _logit(model):
    return lambda x: model(x)[:, 0]


def _log_probability(model):
    return lambda x: F.log_softmax(model(x), 1)[:, 1]


def _require(model, x=None, scalar=_logit):
    require_curvature(model, scalar(model), nets.inputs() if x is None else x)


def test_a_rectifier_network_is_refused_and_its_smoothed_one_accepted():
    model = nets.build("conv", activation=nn.ReLU)
    with pytest.raises(UsageError, match=r"relu in .* \(ReLU\).* use sg\.smooth\(model, beta=50\)"):
        _require(model)
    _require(smooth(model))


def test_curvature_of_the_score_does_not_hide_the_kinks_of_the_network():
    model = nets.build("conv", activation=nn.ReLU)
    with pytest.raises(UsageError, match="leaves that out"):
        _require(model, scalar=_log_probability)
    _require(nets.build("conv", activation=nn.Softplus), scalar=_log_probability)


def test_curvature_of_one_layer_does_not_hide_the_kinks_of_another():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.PReLU(), nn.Linear(8, 3))
    with pytest.raises(UsageError, match=r"prelu in 3 \(PReLU\)"):
        _require(model, torch.rand(4, 6))


def test_a_linear_score_is_refused_without_advice_that_does_not_help():
    model, x = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)), torch.rand(4, 6)
    for way in (model, smooth(model)):
        with pytest.raises(UsageError, match="linear in the inputs") as error:
            _require(way, x)
        assert "sg.smooth" not in str(error.value)
    _require(model, x, _log_probability)


def test_max_pooling_between_curved_layers_is_let_pass():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Softplus(), nn.Flatten(), nn.Linear(2, 3))
    _require(model)
    _require(smooth(nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 3))))


class _Hard(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * (x > 0)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * 3 * x**2


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * 3 * x**2


class _Own(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


@pytest.mark.parametrize("function", [_Hard, _Once])
@pytest.mark.parametrize("smoothed", [False, True])
def test_an_autograd_function_without_a_true_second_derivative_is_named(function, smoothed):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), _Own(function), nn.Linear(8, 3))
    with pytest.raises(UsageError, match=r"in 3 \(_Own\).*no smooth form|relu in 3 \(_Own\)"):
        _require(smooth(model) if smoothed else model, torch.rand(4, 6))


def test_an_autograd_function_with_a_second_derivative_is_taken():
    model = nn.Sequential(nn.Linear(6, 8), _Own(_Cube), nn.Linear(8, 3))
    _require(model, torch.rand(4, 6))


class _Distances(nn.Module):
    def __init__(self):
        super().__init__()
        self.points = nn.Parameter(torch.rand(3, 6))

    def forward(self, x):
        return -torch.cdist(x, self.points)


def test_an_operation_without_second_derivative_is_an_error_with_its_name():
    with pytest.raises(UsageError, match=r"no second derivative: .*cdist"):
        _require(_Distances(), torch.rand(4, 6))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("smoothed", [False, True])
def test_rectifiers_in_torchscript_are_named(smoothed):
    inner = torch.jit.trace(nn.Sequential(nn.Linear(6, 8), nn.ReLU()), torch.rand(2, 6))
    model = nn.Sequential(nn.Linear(6, 6), nn.GELU(), inner, nn.Linear(8, 3))
    with pytest.raises(UsageError, match=r"relu in 2 .*TorchScript.*no smooth form"):
        _require(smooth(model) if smoothed else model, torch.rand(4, 6))


def test_the_model_has_no_hooks_afterwards():
    model = nets.build("conv", activation=nn.ReLU)
    with pytest.raises(UsageError):
        _require(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
