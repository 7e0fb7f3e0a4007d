"""Certified bounds: no point of any ball is beyond them, and they are not far from what is reached."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gates
import nets
from oracles import bounds as oracle
from steadygrad import randomness, smoothing
from steadygrad.attributions import InputXGradient, IntegratedGradients, Saliency
from steadygrad.attributions.similarity import pixel_maps
from steadygrad.bounds import CertifiedDeviation, DeviationBound, deviation
from steadygrad.bounds.certified.tracing import trace
from steadygrad.classifier import Classifier
from steadygrad.errors import Failure, UsageError
from steadygrad.threat import l2, linf

pytestmark = pytest.mark.slow

POINTS = 500  # per sample and case
KINDS = ("mlp", "conv", "residual", "pools", "bare")


class Bare(nn.Module):
    """A forward of functions, constants and differences."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 3)
        self.register_buffer("shift", torch.tensor([0.1, -0.2, 0.3, 0.0]).view(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.4) / 0.3
        h = torch.relu(self.conv(x) + self.shift)
        h = F.max_pool2d(h, 2, stride=1) - 0.5 * F.avg_pool2d(h, 2, 1)
        h = F.softplus(F.adaptive_avg_pool2d(h, 1) * 2, beta=3)
        return self.head(h.view(h.size(0), -1))


def model_of(kind: str, activation: type[nn.Module], seed: int = 0) -> nn.Module:
    if kind not in ("pools", "bare"):
        return nets.build(kind, activation=activation, dtype=torch.float64, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "bare":
            net: nn.Module = Bare()
        else:
            net = nn.Sequential(
                *(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), activation()),
                *(nn.Conv2d(4, 6, 2), nn.MaxPool2d(2, 1, dilation=1), nn.Identity(), nn.Dropout(0.5)),
                *(nn.Flatten(), nn.LazyLinear(8), nn.BatchNorm1d(8), activation(), nn.Linear(8, 3)),
            )
            net.eval()(torch.rand(2, 1, 4, 4))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(2.0)
        model = Classifier(net.double().eval(), mean=0.5, std=0.4)
    return model.double().eval()


def cases():
    settings = [
        (Saliency(), linf(0.01)),
        (Saliency(of="loss"), l2(0.1)),
        (Saliency(of="probability"), linf(0.1)),
        (IntegratedGradients(steps=3, baseline=0.2, of="log_probability"), linf(0.03)),
        (InputXGradient(), l2(0.4)),
    ]
    for kind in KINDS:
        for activation in (nn.ReLU, nn.Softplus) if kind != "bare" else (nn.ReLU,):
            for attribution, threat in settings:
                name = f"{kind}-{activation.__name__}-{type(attribution).__name__}-{attribution.of}-{threat.norm}"
                yield pytest.param(kind, activation, attribution, threat, id=name)


def points_of(threat, x: Tensor, count: int, seed: int) -> Tensor:
    """Allowed points (count, N, *): half at random, half as far out as they go."""
    generator = randomness.fresh(seed)
    noise = torch.randn(count, *x.shape, generator=generator, dtype=x.dtype)
    noise[::2] = noise[::2].sign() if threat.norm == "linf" else noise[::2]
    scale = torch.rand(count, *[1] * x.ndim, generator=generator, dtype=x.dtype)
    scale[::2] = 1
    size = 1 if threat.norm == "linf" else noise.flatten(2).norm(dim=2).view(count, len(x), *[1] * (x.ndim - 1))
    noise = noise.clamp(-1, 1) if threat.norm == "linf" else noise / size
    return torch.stack([threat.constrain(x, x + float(threat.eps) * step) for step in scale * noise])


@pytest.mark.parametrize(("kind", "activation", "attribution", "threat"), list(cases()))
def test_no_point_is_beyond_the_bound(kind, activation, attribution, threat):
    # 45 cases x 5 samples x 500 points: 112,500, each tried on two bounds and two distances.
    count = 0
    model = model_of(kind, activation, seed=3)
    x, target = nets.inputs(5, dtype=torch.float64, seed=4), torch.tensor([0, 1, 2, 0, 1])
    x[0] = x[0].round()
    bounds = [
        CertifiedDeviation(attribution, exact=exact, units=units, distance=distance, steps=4)(model, x, target, threat)
        for exact, units, distance in ((0, 0, "euclidean"), (256, 2048, "euclidean"), (256, 2048, "cosine"))
    ]
    points = points_of(threat, x, POINTS, seed=5)
    before = attribution(model, x, target)
    after = attribution(model, points.flatten(0, 1), target.repeat(POINTS)).view(POINTS, *x.shape)
    for bound in bounds:
        assert bound.upper.isfinite().all()
        assert (bound.lower <= bound.upper).all()
        assert threat.allows(x, bound.inputs).all()
        reached = torch.stack([deviation(bound.distance, before, maps) for maps in after])
        assert (reached <= bound.upper + 1e-13).all(), (reached / bound.upper).max()
        assert (after >= bound.low - 1e-13).all()
        assert (after <= bound.high + 1e-13).all()
        count += reached.numel()
    assert count == 3 * 5 * POINTS
    assert (bounds[1].upper <= bounds[0].upper * (1 + 1e-9)).all()


@pytest.mark.parametrize("attribution", [Saliency(), Saliency(of="loss"), IntegratedGradients(steps=3)], ids=str)
@pytest.mark.parametrize("kind", ["mlp", "conv", "residual"])
@pytest.mark.parametrize("threat", [linf(0.001), l2(0.004)], ids=str)
def test_at_small_radii_the_bound_is_near_what_is_reached(kind, attribution, threat):
    model, x = nets.build(kind, dtype=torch.float64), nets.inputs(3, dtype=torch.float64)
    bound = CertifiedDeviation(attribution)(model, x, torch.tensor([0, 1, 2]), threat)
    assert (bound.lower > 0).all()
    assert (bound.gap <= 3).all(), bound.gap


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("beta", [None, 5.0])
def test_one_hidden_layer_equals_the_sum_over_its_units(norm, beta):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    model = net if beta is None else smoothing.smooth(net, beta)
    x, target = torch.rand(2, 6, generator=randomness.fresh(1), dtype=torch.float64), torch.tensor([0, 2])
    eps = 0.2
    threat = (linf if norm == "linf" else l2)(eps, bounds=(-9.0, 9.0))
    bound = CertifiedDeviation(Saliency(), exact=0)(model, x, target, threat)

    def slope(z: Tensor) -> Tensor:
        return (z > 0).to(z.dtype) if beta is None else 1 / (1 + torch.exp(-beta * z))

    for n in range(2):
        low, high = oracle.one_hidden_layer(
            net[0].weight.detach(), net[0].bias.detach(), net[2].weight.detach()[target[n]], slope, x[n], eps, norm
        )
        torch.testing.assert_close(bound.low[n], low, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(bound.high[n], high, rtol=1e-7, atol=1e-9)
        assert (bound.low[n] <= low).all()
        assert (bound.high[n] >= high).all()


def test_a_ball_of_radius_zero_leaves_rounding_only():
    model, x = nets.build("conv", activation=nn.ReLU, dtype=torch.float64), nets.inputs(2, dtype=torch.float64)
    bound = CertifiedDeviation(Saliency(of="loss"))(model, x, torch.tensor([0, 1]), linf(0.0))
    assert (bound.upper < 1e-10).all()
    assert (bound.upper > 0).all()


def test_a_model_in_single_precision_is_within_rounding_of_the_bound():
    model, x, target = nets.build("conv"), nets.inputs(4), torch.tensor([0, 1, 2, 0])
    threat = linf(0.01)
    bound = CertifiedDeviation(Saliency())(model, x, target, threat)
    before = Saliency()(model, x, target)
    for point in points_of(threat, x, 200, seed=6):
        after = Saliency()(model, point, target)
        assert (deviation("euclidean", before, after) <= bound.upper + 1e-5 * before.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_read_compute_the_model(kind):
    model, x = model_of(kind, nn.ReLU, seed=1), nets.inputs(3, dtype=torch.float64)
    torch.testing.assert_close(trace(model, x)(x), model(x), rtol=1e-8, atol=1e-8)  # softplus is cut at 20
    smooth = smoothing.smooth(model, 7.0, pooling=False)
    torch.testing.assert_close(trace(smooth, x)(x), smooth(x), rtol=1e-8, atol=1e-8)


class Slicing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3]


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Softsign(), "Softsign"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), "padding mode 'circular'"),
        (nn.LayerNorm((1, 4, 4)), "LayerNorm"),
        (nn.BatchNorm2d(1, track_running_stats=False), "without running statistics"),
        (nn.Softplus(threshold=5), "threshold"),
        (Branching(), "Branching.*cannot be read"),
        (Slicing(), "getitem"),
        (nets.build("attention"), "_Attention.*cannot be read"),
        (smoothing.smooth(nn.MaxPool2d(1), 7.0), "as log-sum-exp: use .*pooling=False"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_a_layer_without_bounds_is_named(layer, message):
    known = isinstance(layer, (Slicing, Branching)) or type(layer).__name__ == "_Attention"
    model = layer if known else nn.Sequential(layer, nn.Flatten(), nn.Linear(16, 3))
    method = CertifiedDeviation(Saliency())
    with pytest.raises(UsageError, match=message):
        method(model, nets.inputs(2), torch.tensor([0, 1]), linf(0.1))


def test_a_forward_that_depends_on_the_batch_is_found_out():
    class Batch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) * x.shape[0]

    x = nets.inputs(2)
    with pytest.raises(Failure, match="other logits than the model"):
        trace(Batch(), x)


def test_certain_pixels_are_in_the_top_k_of_every_point():
    model, x = nets.build("conv", dtype=torch.float64), nets.inputs(4, dtype=torch.float64)
    target, threat, k = torch.tensor([0, 1, 2, 0]), linf(0.004), 0.3
    bound = CertifiedDeviation(Saliency())(model, x, target, threat)
    certain = bound.certain_top_k(k)
    count = round(k * 16)
    assert 0 < certain.sum(1).float().mean() <= count
    for point in points_of(threat, x, 200, seed=7):
        top = pixel_maps(Saliency()(model, point, target)).topk(count).indices
        inside = torch.zeros_like(certain).scatter_(1, top, True)
        assert (inside | ~certain).all()


def test_certain_pixels_by_hand():
    low = torch.tensor([[5.0, 3.0, -1.0, 0.0]])
    high = torch.tensor([[6.0, 4.0, 3.5, 0.5]])
    zero = torch.zeros(1)
    bound = DeviationBound(zero, zero, zero, low, "certified", "euclidean", zero, zero, zero, low=low, high=high)
    assert bound.certain_top_k(0.25).tolist() == [[True, False, False, False]]
    # The second is at least 3, but the third may come to 3.5.
    assert bound.certain_top_k(0.5).tolist() == [[True, False, False, False]]
    assert bound.certain_top_k(0.75).tolist() == [[True, True, False, False]]
    with pytest.raises(UsageError, match="share of the pixels"):
        bound.certain_top_k(0.0)
    linearized = DeviationBound(zero, zero, zero, low, "linearized", "euclidean", zero, zero, zero)
    with pytest.raises(UsageError, match="certified"):
        linearized.certain_top_k()


def test_neighbors_change_nothing():
    model, x, target = model_of("pools", nn.ReLU), nets.inputs(3, dtype=torch.float64), torch.tensor([0, 1, 2])
    seeds = randomness.sample_seeds(3, None)

    def values(p, t, s):
        bound = CertifiedDeviation(Saliency(of="loss"))(model, p, t, linf(0.02), generator=s)
        return bound.upper, bound.lower, bound.low, bound.high

    gates.assert_batch_invariant(values, x, target, seeds, rtol=1e-7, atol=1e-9)


def test_the_lower_value_sees_the_choices_of_a_pool():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 3))
    x = nets.inputs(6, shape=(1, 8, 8))
    target, seeds = model(x).argmax(1), randomness.sample_seeds(6, None)
    bound = CertifiedDeviation(exact=0, units=0)(model, x, target, linf(0.02))
    signs = [x + 0.02 * randomness.normal(seeds, x, draw).sign() for draw in range(60)]
    before = Saliency()(model, x, target)
    random = torch.stack([deviation("euclidean", before, Saliency()(model, p.clamp(0, 1), target)) for p in signs])
    assert bool((bound.lower >= random.amax(0)).all())
    assert float((bound.lower / random.amax(0)).median()) > 1.3


def test_it_leaves_no_trace():
    model, x, target = nets.build("conv", activation=nn.ReLU), nets.inputs(2), torch.tensor([0, 1])
    method = CertifiedDeviation(Saliency(), steps=2)
    gates.assert_leaves_no_trace(
        model, lambda: method(model, x, target, linf(0.01)), inputs=[x, target], failing_at=(0, 1)
    )
