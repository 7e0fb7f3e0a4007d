"""Smooth forms of functions with kinks, against the functions themselves and closed forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nets
from steadygrad import derivatives
from steadygrad.errors import UsageError
from steadygrad.smoothing import has_rectifiers, lead_of, smooth


def _double(kind, **settings):
    return nets.build(kind, dtype=torch.float64, **settings), nets.inputs(3, dtype=torch.float64)


class _Apply(nn.Module):
    """A rectifier applied to what a linear layer gives, written in one of the usual ways."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x):
        return self.act(x * 1.0)


def _in_place(function):
    def apply(x):
        function(x)
        return x

    return apply


RELUS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu by name": lambda x: F.relu(input=x),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "method in place, result dropped": _in_place(lambda x: x.relu_()),
    "F.relu in place, result dropped": _in_place(lambda x: F.relu(x, inplace=True)),
}

OTHERS = {
    "relu6": (nn.ReLU6(), F.relu6),
    "relu6 in place": (_in_place(nn.ReLU6(inplace=True)), F.relu6),
    "F.relu6": (F.relu6, F.relu6),
    "hard tanh": (nn.Hardtanh(), F.hardtanh),
    "leaky": (nn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2)),
    "leaky in place": (_in_place(nn.LeakyReLU(0.2, inplace=True)), lambda x: F.leaky_relu(x, 0.2)),
    "leaky by name": (lambda x: F.leaky_relu(x, negative_slope=0.2), lambda x: F.leaky_relu(x, 0.2)),
}


@pytest.mark.parametrize("way", RELUS)
def test_every_way_to_write_a_relu_is_smoothed(way):
    x = torch.linspace(-3, 8, 45, dtype=torch.float64)[:, None]
    model = _Apply(RELUS[way])
    torch.testing.assert_close(smooth(model, 3.0)(x), F.softplus(x, beta=3.0))
    torch.testing.assert_close(model(x), x.clamp_min(0))
    curvature = derivatives.hvp(lambda z: smooth(model, 3.0)(z)[:, 0], x, torch.ones_like(x))
    sigmoid = torch.sigmoid(3 * x)
    torch.testing.assert_close(curvature, 3 * sigmoid * (1 - sigmoid), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("way", OTHERS)
def test_other_rectifiers_are_smoothed_and_approached(way):
    act, exact = OTHERS[way]
    x = torch.linspace(-3, 9, 49, dtype=torch.float64)[:, None]
    errors = [(smooth(_Apply(act), beta)(x) - exact(x)).abs().max().item() for beta in (1.0, 10.0, 100.0)]
    for beta, error in zip((1.0, 10.0, 100.0), errors, strict=True):
        assert 0.3 / beta < error <= 0.6932 / beta


@pytest.mark.parametrize("kind", nets.KINDS)
def test_smoothed_networks_approach_the_original(kind):
    model, x = _double(kind, activation=nn.ReLU)
    errors = [(smooth(model, beta)(x) - model(x)).abs().max().item() for beta in (10.0, 100.0, 1000.0, 10000.0)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 < errors[0]


def test_smoothing_shares_the_weights_and_is_taken_back():
    model, x = _double("residual", activation=nn.ReLU)
    before = model(x)
    wrapped = smooth(model, 5.0)
    assert wrapped.model is model
    assert {id(p) for p in wrapped.parameters()} == {id(p) for p in model.parameters()}
    assert not torch.equal(wrapped(x), before)
    assert torch.equal(wrapped.model(x), before)
    with torch.no_grad():
        next(model.parameters()).zero_()
    assert not torch.equal(wrapped.model(x), before)


def test_smoothing_ends_with_an_exception():
    class Broken(nn.Module):
        def forward(self, x):
            raise KeyError

    with pytest.raises(UsageError, match="KeyError"):
        smooth(Broken())(torch.zeros(1))
    assert F.relu(torch.tensor(-1.0)).item() == 0.0


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_beta_must_be_positive(beta):
    with pytest.raises(UsageError, match="beta must be positive"):
        smooth(nn.ReLU(), beta)


def test_rectifiers_are_found_by_what_is_called_and_not_by_values():
    # All units are far from their kink, where softplus is the rectifier to the last digit.
    model = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3))
    x = torch.rand(2, 16)
    with torch.no_grad():
        model[0].bias.fill_(100.0)
        assert torch.equal(model(x), smooth(model)(x))
    assert has_rectifiers(model, x)
    assert has_rectifiers(nn.ReLU6(inplace=True), x)
    assert has_rectifiers(nn.TransformerEncoderLayer(16, 2, batch_first=True), x[:, None])
    assert not has_rectifiers(nn.Sequential(nn.Linear(16, 4), nn.GELU()), x)
    assert not has_rectifiers(smooth(nn.Tanh()), x)


def test_weights_and_what_follows_from_them_are_left_as_they_are():
    class Standardized(nn.Linear):
        def forward(self, x):
            scale = self.weight.abs().clamp(min=0.01).amax(1, keepdim=True)
            return F.linear(x, self.weight / scale, self.bias)

    model, x = Standardized(6, 3), torch.rand(4, 6)
    assert torch.equal(smooth(model, 1.0)(x), model(x))
    assert not has_rectifiers(model, x)


def test_integers_and_drawn_masks_are_left_as_they_are():
    class Model(nn.Module):
        def forward(self, x):
            places = torch.arange(x.shape[1]).clamp(max=2)
            kept = torch.zeros_like(x) < 0.5
            return x[:, places] + torch.where(kept, x, 0.0)[:, :1]

    x = torch.rand(4, 6)
    assert torch.equal(smooth(Model(), 1.0)(x), Model()(x))


def _logsumexp_of_windows(x, kernel, stride, padding, beta):
    side = (x.shape[-1] + 2 * padding - kernel) // stride + 1
    out = torch.zeros(*x.shape[:2], side, side, dtype=x.dtype)
    for i in range(side):
        for j in range(side):
            rows = range(max(0, i * stride - padding), min(x.shape[2], i * stride - padding + kernel))
            columns = range(max(0, j * stride - padding), min(x.shape[3], j * stride - padding + kernel))
            window = x[:, :, list(rows)][:, :, :, list(columns)].flatten(2)
            out[:, :, i, j] = (beta * window).exp().sum(-1).log() / beta
    return out


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 0), (2, 3, 1)])
def test_max_pooling_becomes_the_logarithm_of_a_sum(kernel, stride, padding):
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    pool = nn.MaxPool2d(kernel, stride, padding)
    torch.testing.assert_close(smooth(pool, 3.0)(x), _logsumexp_of_windows(x, kernel, stride, padding, 3.0))
    assert torch.equal(smooth(pool, 3.0, pooling=False)(x), pool(x))


POOLS = {
    "dilated": nn.MaxPool2d(2, 2, dilation=2),
    "rounded up": nn.MaxPool2d(2, 2, ceil_mode=True),
    "two sizes": nn.MaxPool2d((2, 3), (1, 2), (1, 0)),
    "function": lambda x: F.max_pool2d(x, 3),
    "of torch": lambda x: torch.max_pool2d(x, 3),
    "one dimension": lambda x: F.max_pool1d(x.flatten(1, 2), 3),
    "three dimensions": lambda x: F.max_pool3d(x, 2),
    "adaptive": nn.AdaptiveMaxPool2d((2, 3)),
    "adaptive, all": nn.AdaptiveMaxPool2d(1),
    "amax": lambda x: x.amax((2, 3)),
    "amin": lambda x: x.amin((2, 3)),
    "max over one": lambda x: x.max(2).values,
    "max over one, by place": lambda x: torch.max(x, 2, True)[0],
    "min over one": lambda x: torch.min(x, dim=3).values,
    "max over all": lambda x: x[0].max(),
}


@pytest.mark.parametrize("way", POOLS)
def test_maxima_are_approached(way):
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    model = _Apply(POOLS[way])
    hard, soft = model(x), [smooth(model, beta)(x) for beta in (5.0, 50.0, 5000.0)]
    assert all(s.shape == hard.shape for s in soft)
    errors = [float((s - hard).abs().max()) for s in soft]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3


@pytest.mark.parametrize("way", POOLS)
def test_derivatives_of_maxima_of_both_orders_are_those_of_differences(way):
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    model = smooth(_Apply(POOLS[way]), 3.0)
    assert torch.autograd.gradcheck(model, x)
    assert torch.autograd.gradgradcheck(model, x)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_pool_that_gives_places_too_is_smoothed(rank):
    x = torch.randn(2, 2, *[6] * rank, dtype=torch.float64)
    for pool in (f"MaxPool{rank}d", f"AdaptiveMaxPool{rank}d"):
        plain, places = (getattr(nn, pool)(2, **more) for more in ({}, {"return_indices": True}))
        model = _Apply(lambda z, places=places: places(z)[0] + 0 * places(z)[1])
        torch.testing.assert_close(smooth(model, 3.0)(x), smooth(plain, 3.0)(x))


class _Bent(nn.Module):
    """Kinks of many kinds on the way to logits."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        x = F.adaptive_max_pool2d(F.max_pool2d(F.leaky_relu(x), 3, 2, 1), 2)
        x = torch.maximum(x, 0.3 * x.abs())
        return torch.where(x > 0, x, 0.1 * x).amax((2, 3)) + x.amin(axis=3).max(2).values


def test_a_search_is_led_by_models_that_come_nearer_whatever_their_scale():
    model, x = _Bent().double().requires_grad_(False), torch.rand(3, 1, 7, 7, dtype=torch.float64)
    lead = lead_of(model, x)
    soft = [lead(share)(x) for share in (0.0, 0.5, 1.0)]
    errors = [float((s - model(x)).abs().max()) for s in soft]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.02 * errors[0]
    torch.testing.assert_close(lead(0.5)(x[1:2]), soft[1][1:2])  # sample by sample
    model.first.weight *= 1e4
    model.first.bias *= 1e4
    torch.testing.assert_close(lead(0.5)(x), 1e4 * soft[1])


@pytest.mark.parametrize(
    "largest", [lambda z: z.max(), lambda z: z.amax((0, -1)), lambda z: z.max(0).values], ids=["all", "some", "values"]
)
def test_maxima_over_the_batch_are_led_too(largest):
    x = torch.rand(3, 4, dtype=torch.float64)
    model = _Apply(lambda z: torch.zeros_like(z) + largest(z))
    torch.testing.assert_close(lead_of(model, x)(1.0)(x), model(x), atol=0.01, rtol=0)


def test_a_smooth_model_leads_itself_and_a_smoothed_one_by_what_it_was():
    x = torch.rand(2, 1, 7, 7)
    tanh = nn.Sequential(nn.Flatten(), nn.Linear(49, 3), nn.Tanh())
    assert lead_of(tanh, x)(0.0) is tanh
    model = _Bent()
    led = lead_of(smooth(model, 50.0, pooling=False), x)(0.5)
    assert led.model is model
    torch.testing.assert_close(led(x), lead_of(model, x)(0.5)(x))
