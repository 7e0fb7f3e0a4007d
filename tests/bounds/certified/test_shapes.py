"""Scalar functions: what is said about their extremes, slopes and remainders holds on a fine grid, and is sharp."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from steadygrad import randomness
from steadygrad.bounds.certified import shapes
from steadygrad.bounds.certified.curves import Curve, extremes, slope_range
from steadygrad.bounds.certified.intervals import Interval

SHAPES = {
    "relu": (shapes.RELU, F.relu),
    "leaky": (shapes.straight((0.0,), (0.1, 1.0)), lambda x: F.leaky_relu(x, 0.1)),
    "steeper below": (shapes.straight((0.0,), (1.5, 1.0)), lambda x: F.leaky_relu(x, 1.5)),
    "relu6": (shapes.straight((0.0, 6.0), (0.0, 1.0, 0.0)), F.relu6),
    "hardtanh": (shapes.straight((-1.0, 1.0), (0.0, 1.0, 0.0), -1.0), F.hardtanh),
    "hardsigmoid": (shapes.straight((-3.0, 3.0), (0.0, 1 / 6, 0.0)), F.hardsigmoid),
    "abs": (shapes.straight((0.0,), (-1.0, 1.0)), torch.abs),
    "hardswish": (shapes.HARDSWISH, F.hardswish),
    "elu": (shapes.elu(1.0), F.elu),
    "elu 2": (shapes.elu(2.0), lambda x: F.elu(x, 2.0)),
    "softplus 1": (shapes.softplus(1.0), F.softplus),
    "softplus 20": (shapes.softplus(20.0), lambda x: F.softplus(x, 20.0)),
    "sigmoid": (shapes.SIGMOID, torch.sigmoid),
    "tanh": (shapes.TANH, torch.tanh),
    "silu": (shapes.SILU, F.silu),
    "gelu": (shapes.GELU, F.gelu),
    "square": (shapes.SQUARE, torch.square),
    "inverse root": (
        shapes.inverse_root(0.5),
        lambda x: torch.where(x < 0, 0.5**-0.5 - 0.5 * 0.5**-1.5 * x, (x.clamp_min(0) + 0.5).rsqrt()),
    ),
    "gelu by tanh": (shapes.TANH_GELU, lambda x: F.gelu(x, approximate="tanh")),
}


@pytest.fixture(params=SHAPES, ids=str)
def known(request):
    """The shape, PyTorch's function, intervals (300, 1), and a grid in each, (300, G)."""
    shape, function = SHAPES[request.param]
    generator = randomness.fresh(0)
    center = 3 * torch.randn(300, 1, generator=generator, dtype=torch.float64)
    reach = torch.rand(2, 300, 1, generator=generator, dtype=torch.float64)
    reach = reach * torch.tensor([1e-3, 0.3, 8.0], dtype=torch.float64).repeat_interleave(100)[:, None]
    low, high = center - reach[0], center + reach[1]
    x = Interval(center, low, high, torch.zeros_like(center))
    grid = low + torch.linspace(0, 1, 2001, dtype=torch.float64) * (high - low)
    return shape, function, x, grid


def test_the_function_and_its_derivatives_are_those_of_pytorch(known):
    shape, function, _, grid = known
    x = grid.clone().requires_grad_()
    value = function(x)
    assert torch.allclose(shape.plain(x), value, rtol=1e-12, atol=3e-9)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    assert torch.allclose(shape.slope(grid), slope, rtol=1e-7, atol=3e-9)
    if slope.requires_grad and function is not F.hardsigmoid:  # of which PyTorch has no second derivative
        (second,) = torch.autograd.grad(slope.sum(), x)
        assert torch.allclose(shape.second(grid), second, rtol=1e-8, atol=1e-7)
    # The pieces cover all numbers, and agree with the whole.
    for pieces, whole in ((shape.values, shape.plain), (shape.slopes, shape.slope)):
        assert pieces[0].low == -torch.inf
        assert pieces[-1].high == torch.inf
        assert all(a.high == b.low for a, b in itertools.pairwise(pieces))
        for piece in pieces:
            inside = grid[(grid > piece.low) & (grid < piece.high)]
            assert torch.allclose(piece.value(inside), whole(inside), rtol=1e-12, atol=1e-15)


def test_extremes_beside_a_line_hold_and_are_sharp(known):
    shape, _, x, grid = known
    slopes = torch.randn(300, 1, generator=randomness.fresh(1), dtype=torch.float64)
    for slope in (0.0, slopes, shape.slope(x.center)):
        least, most = extremes(shape.values, slope, x.low, x.high)
        beside = shape.plain(grid) - slope * grid
        spread = 1e-3 * (beside.amax(1) - beside.amin(1))[:, None] + 1e-9 + 1e-5 * (x.high - x.low)
        assert (least <= beside.amin(1, keepdim=True) + 1e-13).all()
        assert (most >= beside.amax(1, keepdim=True) - 1e-13).all()
        assert (least >= beside.amin(1, keepdim=True) - spread).all()
        assert (most <= beside.amax(1, keepdim=True) + spread).all()
    low, high = slope_range(shape.values, x.low, x.high)
    assert (low <= shape.slope(grid).amin(1, keepdim=True) + 1e-14).all()
    assert (high >= shape.slope(grid).amax(1, keepdim=True) - 1e-14).all()


def test_values_slopes_and_what_first_order_leaves_out_are_within(known):
    shape, function, x, grid = known
    layer, step = Curve(shape), grid - x.center
    for found, value, tangent in (
        (layer.forward(x), function, shape.slope),
        (layer.slopes(x), shape.slope, shape.second),
    ):
        values = value(grid)
        assert (values >= found.low).all()
        assert (values <= found.high).all()
        left = (values - value(x.center) - tangent(x.center) * step).abs().amax(1, keepdim=True)
        assert (left <= found.rest + 1e-14).all()
        if not shape.kinks and found.rest is not None:
            assert (found.rest <= 1.02 * left + 1e-4 * (x.high - x.low) + 1e-8).all()


def test_the_lines_are_above_and_below_whatever_their_slopes(known):
    shape, function, x, grid = known
    layer, generator = Curve(shape), randomness.fresh(2)
    low, high = layer.slope_range(x)
    drawn = [low + torch.rand(300, 1, generator=generator, dtype=torch.float64) * (high - low) for _ in range(2)]
    for lines in (None, type(layer.lines(x))(*drawn)):
        for sign in (1.0, -1.0):
            rows = torch.full((1, 300, 1), sign, dtype=torch.float64)
            (new,), constant = layer.above(rows, x, lines=lines)
            assert (sign * function(grid) <= new[0] * grid + constant[0][:, None]).all()
