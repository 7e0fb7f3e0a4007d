"""First-order bounds against explicit Jacobians and against every corner of small boxes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gates
import nets
from oracles import bounds as oracle
from steadygrad import randomness, registry, smoothing
from steadygrad.attributions import InputXGradient, IntegratedGradients, Saliency, SmoothGrad
from steadygrad.bounds import CertifiedDeviation, LinearizedDeviation, deviation
from steadygrad.bounds.box import allowed_box
from steadygrad.bounds.linearized import corners, lanczos
from steadygrad.bounds.result import cosine_bound
from steadygrad.errors import UsageError
from steadygrad.threat import Threat, l1, l2, linf

WIDE = (-100.0, 100.0)
METHODS = [
    Saliency(),
    Saliency(of="loss"),
    InputXGradient(),
    IntegratedGradients(steps=4, baseline=0.3, of="log_probability"),
]


def setup(kind="mlp", shape=(1, 3, 3), count=3, dtype=torch.float64):
    model = nets.build(kind, shape=shape, dtype=dtype)
    return model, nets.inputs(count, shape=shape, dtype=dtype), torch.arange(count) % 3


def maps_of(attribution, model, target):
    return lambda p: attribution(model, p, target)


CASES = [
    ("mlp", (1, 24, 24), Saliency()),
    ("mlp", (1, 28, 28), Saliency(of="loss")),
    ("mlp", (1, 32, 32), InputXGradient()),
    ("conv", (1, 24, 24), Saliency(of="log_probability")),
    ("residual", (1, 28, 28), Saliency()),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "shape", "attribution"), CASES, ids=lambda v: str(v)[:24])
def test_the_largest_singular_value_costs_a_tenth_of_the_jacobian(kind, shape, attribution):
    model, x, target = setup(kind, shape, count=10)
    threat = l2(1.0, bounds=WIDE)
    bound = LinearizedDeviation(attribution)(model, x, target, threat)
    exact = torch.linalg.matrix_norm(oracle.jacobian(maps_of(attribution, model, target), x), ord=2)
    torch.testing.assert_close(bound.upper, exact, rtol=1e-3, atol=0)
    assert (bound.lower <= exact * (1 + 1e-6)).all()
    assert (bound.gap <= 1.001 + 1e-6).all()
    assert (bound.residual <= 1e-3).all()
    nodes = getattr(attribution, "steps", 1)
    assert (bound.backwards <= x[0].numel() * nodes / 10).all(), bound.backwards


@pytest.mark.parametrize("exact", [0, 256])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("attribution", METHODS, ids=lambda m: f"{type(m).__name__} {m.of}")
def test_no_corner_of_the_box_is_further_on_the_tangent(attribution, distance, exact):
    model, x, target = setup()
    x[0] = x[0].round()  # at the bounds, where half of the box is missing
    threat = linf(0.05)
    method = LinearizedDeviation(attribution, distance=distance, exact=exact, restarts=4)
    bound = method(model, x, target, threat)
    maps = attribution(model, x, target)
    jacobian = oracle.jacobian(maps_of(attribution, model, target), x)
    low, high = allowed_box(x, threat)
    for n in range(len(x)):
        changes = oracle.corners((low - x)[n].flatten(), (high - x)[n].flatten())
        moved = maps[n].flatten() + changes @ jacobian[n].T
        worst = float(deviation(distance, maps[n].flatten().expand_as(moved), moved).max())
        assert worst <= bound.upper[n] * (1 + 1e-6)
        assert bound.lower[n] <= worst * (1 + 1e-6)
        assert bound.lower[n] >= (0.99 if distance == "euclidean" else 0.97) * worst
        if distance == "euclidean":
            assert bound.upper[n] <= 1.1 * worst
    assert threat.allows(x, bound.inputs).all()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_no_point_of_an_l2_ball_is_further_on_the_tangent(distance):
    model, x, target = setup("conv", (1, 4, 4))
    attribution, threat = IntegratedGradients(steps=4), l2(0.1)
    bound = LinearizedDeviation(attribution, distance=distance)(model, x, target, threat)
    maps = attribution(model, x, target).flatten(1)
    jacobian = oracle.jacobian(maps_of(attribution, model, target), x)
    seeds = randomness.sample_seeds(3, None)
    for draw in range(300):
        change = randomness.normal(seeds, x, draw)
        change = threat.constrain(x, x + change) - x
        moved = maps + torch.einsum("nij,nj->ni", jacobian, change.flatten(1))
        assert (deviation(distance, maps, moved) <= bound.upper * (1 + 1e-6)).all()
    assert (bound.lower <= bound.upper).all()
    assert threat.allows(x, bound.inputs).all()


def test_the_relaxation_is_the_least_of_the_bounds_in_use():
    generator = randomness.fresh(0)
    factor = torch.randn(6, 4, 9, generator=generator, dtype=torch.float64)
    factor[1, :, 3] = 0  # an entry that moves nothing
    factor[2] = 0
    factor[3] *= 1e-12
    start = torch.randn(6, 8, 9, generator=generator, dtype=torch.float64)
    form = corners.FactoredMatrix(factor)
    bound, vectors = corners.relaxation_bound(form, start)
    best = corners.best_corner(form, start)
    reached = (factor @ best[:, :, None]).flatten(1).norm(dim=1)
    for n in range(6):
        worst = oracle.longest(factor[n])
        gram = factor[n].T @ factor[n]
        others = [
            gram.abs().sum().sqrt(),
            torch.linalg.matrix_norm(factor[n], ord=2) * 3,
            factor[n].abs().sum(1).norm(),
        ]
        assert worst <= bound[n] * (1 + 1e-12)
        assert bound[n] <= min(map(float, others)) * (1 + 1e-3)
        assert bound[n] <= math.sqrt(math.pi / 2) * worst * (1 + 1e-3)
        assert reached[n] >= 0.9 * worst
    assert vectors.isfinite().all()


def test_a_form_with_its_parts_is_the_matrix_it_stands_for():
    generator = randomness.fresh(1)
    left = torch.linalg.qr(torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)).Q.transpose(1, 2)
    rows, stretch, last, across = (
        torch.randn(2, *shape, generator=generator, dtype=torch.float64) for shape in ((3, 6), (5,), (5,), (5,))
    )
    across = across / across.norm(dim=1, keepdim=True)
    cut = torch.eye(5, dtype=torch.float64) - across[:, :, None] * across[:, None]
    dense = cut @ (left.transpose(1, 2) @ rows + torch.cat([torch.diag_embed(stretch), last[:, :, None]], 2))
    form = corners.FactoredMatrix(rows, left, stretch, last, across)
    s, u = (torch.randn(2, 4, n, generator=generator, dtype=torch.float64) for n in (6, 5))
    torch.testing.assert_close(form.apply(s), s @ dense.transpose(1, 2))
    torch.testing.assert_close(form.adjoint(u), u @ dense)
    start = torch.randn(2, 8, 6, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        corners.relaxation_bound(form, start)[0],
        corners.relaxation_bound(corners.FactoredMatrix(dense), start)[0],
        rtol=1e-3,
        atol=0,
    )


class Dense:
    def __init__(self, matrix):
        self.matrix = matrix

    def apply(self, v):
        return torch.einsum("nij,nj->ni", self.matrix, v)

    def adjoint(self, u):
        return torch.einsum("nij,ni->nj", self.matrix, u)

    def at(self, rows):
        return Dense(self.matrix[rows])


def test_bidiagonalization_stops_sample_by_sample_and_keeps_what_it_had():
    generator = randomness.fresh(2)
    matrix = torch.randn(5, 12, 9, generator=generator, dtype=torch.float64)
    matrix[0] = 0
    matrix[1] = torch.outer(matrix[1, :, 0], matrix[1, 0])
    start = torch.randn(5, 9, generator=generator, dtype=torch.float64)
    whole = lanczos.largest(Dense(matrix), start, steps=9, tolerance=1e-6)
    value, residual, vector = whole.top()
    torch.testing.assert_close(value, torch.linalg.matrix_norm(matrix, ord=2), rtol=1e-6, atol=1e-12)
    assert whole.steps[1] <= 2 < int(whole.steps.max())
    torch.testing.assert_close(torch.einsum("nkm,nmj->nkj", whole.left, matrix), whole.factor, rtol=1e-9, atol=1e-9)
    for n in range(1, 5):
        alone = lanczos.largest(Dense(matrix[n : n + 1]), start[n : n + 1], steps=9, tolerance=1e-6)
        assert alone.steps[0] == whole.steps[n]
        torch.testing.assert_close(alone.top()[0][0], value[n])
        torch.testing.assert_close(matrix[n] @ vector[n], matrix[n] @ alone.top()[2][0], rtol=1e-5, atol=1e-5)
    assert (residual <= 1e-6 * value + 1e-15).all()


def test_cosine_bound_is_reached_in_the_plane():
    norm, radius = torch.tensor([2.0], dtype=torch.float64), 0.5
    angles = torch.linspace(0, 2 * math.pi, 100_001, dtype=torch.float64)
    moved = torch.stack([2 + radius * angles.cos(), radius * angles.sin()], 1)
    worst = deviation("cosine", torch.tensor([[2.0, 0.0]], dtype=torch.float64).expand_as(moved), moved).max()
    bound = cosine_bound(norm, *[torch.tensor([radius], dtype=torch.float64)] * 3)
    torch.testing.assert_close(bound[0], worst, rtol=1e-6, atol=0)
    beyond = torch.tensor([3.0], dtype=torch.float64)
    assert cosine_bound(norm, beyond, beyond).item() == 2
    # Only as far as the part across the map allows.
    assert cosine_bound(norm, torch.zeros_like(norm), torch.ones_like(norm)).item() == 0


def test_the_remainder_explains_what_the_model_does_beyond_the_tangent():
    model, x, target = setup("conv", (1, 4, 4))
    bound = LinearizedDeviation(Saliency())(model, x, target, linf(0.3))
    assert ((bound.attack - bound.lower).abs() <= bound.remainder + 1e-12).all()
    assert (bound.remainder > 0).all()
    near = LinearizedDeviation(Saliency())(model, x, target, linf(0.003))
    assert (near.remainder / near.lower < 0.1 * bound.remainder / bound.lower).all()


def test_a_column_of_rounding_noise_does_not_decide_when_the_relaxation_ends():
    # The last column is such noise wherever the box lies evenly around its input.
    drawn = torch.Generator().manual_seed(0)
    rows, start = (torch.randn(1, k, 17, generator=drawn, dtype=torch.float64) for k in (8, 4))
    found = []
    for _ in range(8):
        rows[0, :, -1] = 1e-17 * torch.randn(8, generator=drawn, dtype=torch.float64)
        found.append(float(corners.relaxation_bound(corners.FactoredMatrix(rows), start)[0]))
    assert max(found) == pytest.approx(min(found), rel=1e-12)


@pytest.mark.parametrize("attribution", METHODS, ids=lambda m: f"{type(m).__name__} {m.of}")
@pytest.mark.parametrize("threat", [l2(0.1), linf(0.02)], ids=str)
def test_chunks_and_neighbors_change_nothing(attribution, threat):
    model, x, target = setup("conv", (1, 4, 4))
    whole = LinearizedDeviation(attribution, exact=0)(model, x, target, threat)
    chunked = LinearizedDeviation(attribution, exact=0, chunk=2)(model, x, target, threat)
    torch.testing.assert_close(chunked.upper, whole.upper, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(chunked.lower, whole.lower, rtol=1e-9, atol=1e-12)
    seeds = randomness.sample_seeds(3, None)

    def values(p, t, s):
        bound = LinearizedDeviation(attribution, exact=0)(model, p, t, threat, generator=s)
        return bound.upper, bound.lower, bound.backwards

    gates.assert_batch_invariant(values, x, target, seeds, rtol=1e-6)


@pytest.mark.parametrize("threat", [l2(0.1), linf(0.02)], ids=str)
@pytest.mark.parametrize("exact", [0, 256])
def test_it_leaves_no_trace(threat, exact):
    model, x, target = setup("conv", (1, 4, 4), dtype=torch.float32)
    method = LinearizedDeviation(IntegratedGradients(steps=2), exact=exact)
    gates.assert_leaves_no_trace(model, lambda: method(model, x, target, threat), inputs=[x, target], failing_at=(0, 2))


def test_each_sample_has_its_own_radius():
    model, x, target = setup("conv", (1, 4, 4))
    eps = torch.tensor([0.01, 0.0, 0.03])
    method = LinearizedDeviation(Saliency())
    for norm in ("l2", "linf"):
        together = method(model, x, target, Threat(norm, eps)).upper
        assert together[1] == 0
        for n in (0, 2):
            alone = method(model, x, target, Threat(norm, float(eps[n]))).upper[n]
            torch.testing.assert_close(together[n], alone, rtol=1e-4, atol=0)


def test_rectifiers_are_refused_and_smoothed():
    model, x, target = nets.build("mlp", activation=nn.ReLU), nets.inputs(2), torch.tensor([0, 1])
    method = LinearizedDeviation(Saliency())
    with pytest.raises(UsageError, match=r"sg\.smooth"):
        method(model, x, target, linf(0.01))
    bound = method(smoothing.smooth(model, 5.0), x, target, linf(0.01))
    assert (bound.upper > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distance": "cosin"}, "did you mean 'cosine'"),
        ({"exact": -1}, "exact must be"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"tolerance": 1.0}, r"tolerance must be within \(0, 1\)"),
        ({"attribution": SmoothGrad()}, "no bounds for SmoothGrad"),
        ({"attribution": Saliency("log_odds")}, "take 'log_probability', whose maps point the same way"),
    ],
)
def test_wrong_settings_are_named(change, message):
    with pytest.raises(UsageError, match=message):
        LinearizedDeviation(**{"attribution": Saliency(), **change})


def test_a_kind_that_does_not_exist_is_named():
    with pytest.raises(UsageError, match="did you mean 'linearized'"):
        registry.build("bound", "linearised")


@pytest.mark.parametrize("kind", [LinearizedDeviation, CertifiedDeviation])
def test_wrong_calls_are_named(kind):
    model, x, target = setup()
    method = kind(Saliency())
    with pytest.raises(UsageError, match="not for l1"):
        method(model, x, target, l1(0.1))
    with pytest.raises(UsageError, match="no radius"):
        method(model, x, target, linf())
    with pytest.raises(UsageError, match="inputs must lie within"):
        method(model, x + 1, target, linf(0.1))
    with pytest.raises(UsageError, match=r"0\.\.2"):
        method(model, x, target + 3, linf(0.1))
