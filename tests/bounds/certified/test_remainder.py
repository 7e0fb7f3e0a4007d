"""Remainders: what a layer leaves out is known exactly, and what a map leaves out is never more than said."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import nets
from oracles import bounds as oracle
from steadygrad import randomness
from steadygrad.attributions import Saliency
from steadygrad.bounds import CertifiedDeviation
from steadygrad.bounds.box import allowed_box
from steadygrad.bounds.certified.ball import Ball
from steadygrad.bounds.certified.curves import Curve
from steadygrad.bounds.certified.intervals import Interval
from steadygrad.bounds.certified.propagation import propagate
from steadygrad.bounds.certified.remainder import gradient_intervals, refined_gradient
from steadygrad.bounds.certified.shapes import softplus
from steadygrad.bounds.certified.tracing import trace
from steadygrad.threat import l2, linf


@pytest.mark.parametrize("beta", [1.0, 10.0, 50.0])
def test_what_softplus_leaves_out_is_exact_on_wide_intervals(beta):
    generator = randomness.fresh(0)
    center = torch.randn(400, 1, generator=generator, dtype=torch.float64)
    reach = 2 * torch.rand(2, 400, 1, generator=generator, dtype=torch.float64)
    low, high = center - reach[0], center + reach[1]
    x = Interval(center, low, high, torch.zeros_like(center))
    layer = Curve(softplus(beta))
    share = torch.linspace(0, 1, 4001, dtype=torch.float64)
    points = low + share * (high - low)

    def plain(v):
        return torch.logaddexp(beta * v, torch.zeros_like(v)) / beta

    def slope(v):
        return torch.sigmoid(beta * v)

    def bend(v):
        return beta * slope(v) * slope(-v)

    step = points - center
    for value, tangent, found in (
        (plain, slope, layer.forward(x).rest),
        (slope, bend, layer.slopes(x).rest),
    ):
        worst = (value(points) - value(center) - tangent(center) * step).abs().amax(1, keepdim=True)
        assert (worst <= found).all()
        # On a narrow interval Taylor's bound may be the smaller of the two, never by more than the grid misses.
        assert (found <= 1.001 * worst + 1e-7).all()


@pytest.mark.parametrize("threat", [linf(0.02), l2(0.15)], ids=str)
@pytest.mark.parametrize("of", ["logit", "loss"])
@pytest.mark.parametrize("kind", ["conv", "residual"])
def test_no_point_leaves_the_tangent_by_more_than_the_remainder(kind, of, threat):
    model, x = nets.build(kind, dtype=torch.float64, seed=2), nets.inputs(3, dtype=torch.float64, seed=1)
    target, attribution = torch.tensor([0, 1, 2]), Saliency(of=of)
    x[0] = x[0].round()
    network = trace(model, x)
    low, high = allowed_box(x, threat)
    ball = Ball(x, low, high, threat.radius(x) if threat.norm == "l2" else None)
    found, hessian = gradient_intervals(network, of, ball, target, 2048, exact=16, chunk=10)
    loose, none = gradient_intervals(network, of, ball, target, 2048)
    assert none is None
    jacobian = oracle.jacobian(lambda p: attribution(model, p, target), x)
    torch.testing.assert_close(hessian, jacobian, rtol=1e-5, atol=1e-7)
    before = attribution(model, x, target)
    seeds, most = randomness.sample_seeds(3, None), torch.zeros_like(x)
    for draw in range(400):
        noise = randomness.normal(seeds, x, draw)
        way = noise.sign() if threat.norm == "linf" else noise
        points = threat.constrain(x, x + 10 * way)
        first = torch.einsum("nij,nj->ni", hessian, (points - x).flatten(1)).view_as(x)
        left = (attribution(model, points, target) - before - first).abs()
        assert (left <= found.rest + 1e-13).all()
        most = torch.maximum(most, left)
    assert (found.rest <= loose.rest).all()
    # Signs are kept on the way: narrower than layer by layer, and not far from what is seen.
    assert (found.rest.sum() <= loose.rest.sum() / 2).item()
    assert (found.rest.sum() <= 100 * most.sum()).item()


def test_the_rows_at_once_change_nothing():
    model, x = nets.build("conv", activation=nn.ReLU, dtype=torch.float64), nets.inputs(2, dtype=torch.float64)
    target, threat = torch.tensor([0, 1]), linf(0.03)
    ball = Ball(x, *allowed_box(x, threat))
    wide = propagate(trace(model, x), "loss", ball, target, 2048)
    nothing = torch.zeros_like(x)
    one, other = (refined_gradient(wide, "loss", ball, target, nothing, chunk)[0] for chunk in (1, 14))
    torch.testing.assert_close(one.rest, other.rest, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(one.low, other.low, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("threat", [linf(0.02), l2(0.08)], ids=str)
def test_the_bound_stays_near_at_radii_twenty_times_as_large(threat):
    for kind in ("mlp", "conv", "residual"):
        model, x = nets.build(kind, dtype=torch.float64), nets.inputs(3, dtype=torch.float64)
        bound = CertifiedDeviation(Saliency(of="loss"))(model, x, torch.tensor([0, 1, 2]), threat)
        assert (bound.gap <= 2).all(), bound.gap
