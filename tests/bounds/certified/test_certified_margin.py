"""Certified margins: no allowed point is below them, exact where that is known, and cheap by count."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gates
import steadygrad as sg
from steadygrad import randomness
from steadygrad.attacks import PGD
from steadygrad.bounds import CertifiedMargin
from steadygrad.bounds.certified.intervals import Interval
from steadygrad.bounds.certified.layers import Affine
from steadygrad.bounds.certified.pooling import MaxPool
from steadygrad.bounds.certified.tracing import trace
from steadygrad.errors import UsageError
from steadygrad.threat import Threat, l1, l2, linf

pytestmark = pytest.mark.slow


class Branches(nn.Module):
    """Two ways that are put beside each other, a sum, and a border."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=2, dilation=2)
        self.mixed, self.head = nn.Conv2d(8, 8, 3, groups=2), nn.Linear(32, 3)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([self.activation(self.one(x)), torch.tanh(self.two(x))], 1)
        h = self.activation(self.mixed(F.pad(h, (1, 1, 1, 1))) + h)
        return self.head(F.avg_pool2d(h, 2).flatten(1))


def networks() -> dict[str, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out: dict[str, nn.Module] = {}
        activations = (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.Hardtanh, nn.ELU, nn.Softplus, nn.Tanh, nn.Sigmoid, nn.GELU)
        for activation in (*activations, nn.SiLU, nn.Hardswish, nn.Hardsigmoid):
            layers = (nn.Flatten(), nn.Linear(16, 12), activation(), nn.Linear(12, 10), activation(), nn.Linear(10, 3))
            out[activation.__name__] = nn.Sequential(*layers)
        out["branches"] = Branches(nn.SiLU())
        out["branches of rectifiers"] = Branches(nn.ReLU())
        out["pools"] = nn.Sequential(
            *(nn.ZeroPad2d(1), nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Conv2d(4, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)),
        )
        out["overlapping pools"] = nn.Sequential(
            *(nn.Conv2d(1, 4, 2), nn.MaxPool2d(2, 1), nn.PReLU(), nn.Flatten(), nn.Linear(16, 3)),
        )
        out["dilated pools"] = nn.Sequential(
            *(nn.Conv2d(1, 3, 3, padding=2), nn.MaxPool2d(2, 2, dilation=2), nn.Conv2d(3, 4, 2), nn.MaxPool2d(1)),
            *(nn.Flatten(), nn.Linear(4, 3)),
        )
        out["layer norm"] = nn.Sequential(
            *(nn.Flatten(), nn.Linear(16, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 8), nn.LayerNorm(8)),
            nn.Linear(8, 3),
        )
        out["group norm"] = nn.Sequential(
            *(nn.Conv2d(1, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)),
        )
        for net in out.values():
            net.train()(torch.rand(8, 1, 4, 4))
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.mul_(2.0)
            net.eval()
        return out


NETWORKS = networks()
THREATS = (linf(0.05), l2(0.2), l1(0.5))


def samples(count: int) -> Tensor:
    x = torch.rand(count, 1, 4, 4, generator=randomness.fresh(1))
    x[0] = x[0].round()  # pixels that may move one way only
    return x


def margins(model: nn.Module, points: Tensor, y: Tensor) -> Tensor:
    """(N, K), infinite at the class itself."""
    with torch.no_grad():
        logits = model(points).double()
    return (logits.gather(1, y[:, None]) - logits).scatter(1, y[:, None], math.inf)


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_point_is_below_the_margin(name, threat):
    model, x = NETWORKS[name], samples(4)
    y = model(x).argmax(1)
    settings = [CertifiedMargin(steps=s, units=u) for s, u in ((0, 0), (4, 12), (12, 3))]
    bounds = [method(model, x, y, threat) for method in settings]
    least = margins(model, x, y)
    for draw in range(100):
        points = threat.random(x, torch.arange(4), draw)
        for way in (points, threat.constrain(x, x + 1e3 * (points - x))):
            least = torch.minimum(least, margins(model, way, y))
    for step in (1, 2):
        found = PGD(steps=20)(model, x, y, threat, target=(y + step) % 3).inputs
        least = torch.minimum(least, margins(model, found, y))
    for bound in bounds:
        assert bound.margins.shape == (4, 3)
        assert (bound.margins <= least).all(), (least - bound.margins).min()
        assert (bound.certified <= (least.amin(1) > 0)).all()
    assert (bounds[1].margin >= bounds[0].margin - 1e-12).all()


def test_twelve_inputs_and_all_their_sign_corners():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 3))
    x = torch.rand(3, 12, generator=randomness.fresh(4))
    y, threat = model(x).argmax(1), linf(0.04)
    bound = CertifiedMargin(units=20)(model, x, y, threat)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=12)))
    worst = torch.stack([margins(model, threat.constrain(x, x + s), y).amin(1) for s in 0.04 * signs]).amin(0)
    assert (bound.margin <= worst).all()
    assert (worst - bound.margin < 0.2 * (margins(model, x, y).amin(1) - worst)).all()


def _least_of_linear(weight: np.ndarray, x: np.ndarray, threat: Threat) -> float:
    """The least weight . p for allowed p, by a solver: a linear program, or a cone by its price."""
    low, high = np.maximum(x - threat.eps, 0) - x, np.minimum(x + threat.eps, 1) - x
    if threat.norm == "linf":
        return float(np.minimum(weight * low, weight * high).sum())
    if threat.norm == "l1":  # change = up - down
        cost, bounds = np.concatenate([weight, -weight]), [(0, h) for h in high] + [(0, -b) for b in low]
        return float(scipy.optimize.linprog(cost, np.ones((1, len(cost))), [threat.eps], bounds=bounds).fun)

    def left(price: float) -> float:
        change = np.clip(-weight / price, low, high)
        return float(change @ change - threat.eps**2)

    price = scipy.optimize.brentq(left, 1e-6, 1e6, maxiter=500) if left(1e-6) > 0 else 1e-6
    return float(weight @ np.clip(-weight / price, low, high))


@pytest.mark.parametrize("threat", [linf(0.1), l2(0.3), l1(0.7)], ids=str)
def test_a_linear_model_has_its_exact_margin(threat):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = nn.Linear(9, 4).double()
    x = torch.rand(5, 9, generator=randomness.fresh(6), dtype=torch.float64)
    x[1], x[2] = x[1].round(), x[2].round()
    y = torch.tensor([0, 1, 2, 3, 0])
    bound = CertifiedMargin()(model, x, y, threat)
    before = margins(model, x, y)
    weight = model.weight.detach().numpy()
    for n, k in itertools.product(range(5), range(4)):
        if k != y[n]:
            exact = before[n, k] + _least_of_linear(weight[y[n]] - weight[k], x[n].numpy(), threat)
            assert bound.margins[n, k] == pytest.approx(float(exact), abs=1e-3 if threat.norm != "linf" else 1e-9)
            assert bound.margins[n, k] <= exact + 1e-9
    assert bound.margins.gather(1, y[:, None]).isinf().all()


def test_the_slack_holds_what_single_precision_rounds():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = nn.Sequential(nn.Linear(60, 400), nn.SiLU(), nn.Linear(400, 200), nn.ReLU(), nn.Linear(200, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    x = torch.rand(20, 60, generator=randomness.fresh(8))
    y = torch.arange(20) % 4
    nothing = linf(0.0)
    narrow, wide = CertifiedMargin()(model, x, y, nothing), CertifiedMargin()(model.double(), x.double(), y, nothing)
    exact, rounded = margins(model, x.double(), y), margins(model.float(), x, y)
    other = y[:, None] != torch.arange(4)
    assert (narrow.margins <= torch.minimum(exact, rounded))[other].all()
    off, slack = (rounded - exact)[other].abs().max(), (exact - narrow.margins)[other]
    assert off > 0
    assert (slack > off).all()
    assert slack.max() < 0.02 * exact[other].abs().max()
    assert (exact - wide.margins)[other].max() < 1e-6


def test_a_dilated_pool_carries_a_change_to_every_window_that_holds_it():
    pool = MaxPool((2, 2), (2, 2), (0, 0), (2, 2), False)
    x = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    peak = x.clone()
    peak[0, 0, 2, 2] = 1.0
    assert (pool.plain(peak) - pool.plain(x)).norm() == 2  # four windows hold it
    whole, _ = pool.moved([torch.ones(1, dtype=torch.float64)], Interval(x, x - 1, x + 1, x))
    assert whole >= 2


def test_batches_order_and_company_change_nothing():
    model, x = NETWORKS["branches"], samples(5)
    y = model(x).argmax(1)
    whole = CertifiedMargin()(model, x, y, linf(0.03)).margins
    order = torch.tensor([3, 1, 4, 0, 2])
    small = CertifiedMargin(chunk=2)(model, x[order], y[order], linf(0.03)).margins
    assert torch.allclose(whole[order], small, rtol=1e-9, atol=1e-9)


def test_a_mask_and_radii_per_sample_count():
    model, x = NETWORKS["ReLU"], samples(3)
    y = model(x).argmax(1)
    mask = torch.zeros(1, 4, 4)
    mask[0, 0] = 1
    free, masked = CertifiedMargin()(model, x, y, linf(0.3)), CertifiedMargin()(model, x, y, linf(0.3, mask=mask))
    assert (masked.margin > free.margin).all()
    radii = torch.tensor([0.0, 0.05, 0.3])
    each = CertifiedMargin()(model, x, y, linf(radii)).margin
    assert torch.allclose(each[2], free.margin[2])
    assert torch.allclose(each[0], margins(model, x, y).amin(1)[0], atol=1e-3)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_radius_is_certified_and_a_larger_one_is_not(norm):
    model, x = NETWORKS["SiLU"], samples(6)
    y = model(x).argmax(1)
    y[5] = (y[5] + 1) % 3
    method = CertifiedMargin()
    radius = method.radius(model, x, y, norm)
    assert radius[5] == 0
    assert (radius[:5] > 0).all()
    assert method(model, x[:5], y[:5], Threat(norm, radius[:5])).certified.all()
    assert not method(model, x[:5], y[:5], Threat(norm, radius[:5] * 1.05)).certified.any()
    distances = sg.attacks.FMN(steps=200)(model, x, y, Threat(norm)).distance
    assert (radius[:5] < distances[:5]).all()


def test_one_lenet_sample_takes_at_most_sixty_passes(monkeypatch):
    model = sg.models.build("lenet", (1, 28, 28), 10, seed=0)
    x = torch.rand(2, 1, 28, 28, generator=randomness.fresh(9))
    y = model(x).argmax(1)
    network = trace(model, x)
    work = [0]
    plain, absolute, back = Affine.plain, Affine._absolute, Affine._back

    def sent(self, out: Tensor) -> Tensor:
        work[0] += out.numel() * (self.terms or 0)
        return out

    def sent_back(self, slope: Tensor, like: Tensor, *, absolute: bool = False) -> Tensor:
        before = work[0]
        found = back(self, slope, like, absolute=absolute)
        work[0] = before + slope.numel() * (self.terms or 0)
        return found

    monkeypatch.setattr(Affine, "plain", lambda self, *inputs: sent(self, plain(self, *inputs)))
    monkeypatch.setattr(Affine, "_absolute", lambda self, values: sent(self, absolute(self, values)))
    monkeypatch.setattr(Affine, "_back", sent_back)
    network(x.double())
    once, work[0] = work[0], 0
    with gates.counted(model) as count:
        bound = CertifiedMargin()(model, x, y, linf(0.01))
    assert count["samples"] <= 1 + 2 + 7 * 2  # the model itself is only compared with the layers read from it
    # Besides, up to eight samples' reading is compared at 7 points each, by 2 passes, and all once; and the steps'
    # derivatives are not seen here.
    told = bound.forwards + bound.backwards
    assert work[0] / once <= float(told[0]) - (CertifiedMargin().steps - 1) + 1 + 1 + 7 * 2
    assert (told <= 60).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threat": Threat("l0", 3)}, "l0"),
        ({"threat": linf()}, "radius"),
        ({"y": torch.tensor([0, 9])}, "9"),
        ({"x": torch.full((2, 1, 4, 4), 2.0)}, "bounds"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).half()}, "float16"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Softmax(1))}, "Softmax"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    given = {"model": NETWORKS["ReLU"], "x": samples(2), "y": torch.tensor([0, 1]), "threat": linf(0.1)} | change
    with pytest.raises(UsageError, match=message):
        CertifiedMargin()(**given)


def _linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data, layer.bias.data = torch.tensor(weight).float(), torch.tensor(bias).float()
    return layer


class Misread(nn.Module):
    """Two layers with something between them that a reading of the layers may miss."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.last = _linear([[1, 0], [-1, 0]], [0, 1]), _linear([[1, 1], [0, 0]], [0, 0.9])
        self.weight = nn.Parameter(torch.tensor([[0.5, -0.5], [0.1, 0.4]]))
        if kind == "hook":
            self.first.register_forward_hook(lambda module, inputs, output: output.clamp(max=0.51))

    def forward(self, x: Tensor, cap: float | None = None) -> Tensor:
        h = self.first(x)
        if self.kind == "in place":
            h.clamp_(max=0.51)
        elif self.kind == "in place through a view":
            v = h.flatten(1)
            v.clamp_(max=0.51)
        elif self.kind == "in place by a function":
            k = F.relu(h, inplace=True)
            return self.last(k) + h
        elif self.kind == "default":
            h = h.clamp(max=0.51) if cap is None else h
        elif self.kind == "dropout":
            h = F.dropout(F.relu(h), 0.5)
        elif self.kind == "bfloat16":
            with torch.autocast("cpu", torch.bfloat16):
                return self.last(h)
        return self.last(h)


KINDS = ("hook", "in place", "in place through a view", "in place by a function", "default", "dropout", "bfloat16")


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_reading_of_the_layers_would_miss_is_refused(kind):
    with pytest.raises(UsageError, match=r"no certified bound|cannot be read"):
        CertifiedMargin()(Misread(kind), torch.tensor([[0.5, 0.4]]), torch.tensor([0]), linf(0.3))


def test_in_place_operations_whose_old_value_is_not_used_are_read():
    class Usual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.one(x))
            out = self.two(x)
            out += x
            return self.head(self.relu(out))

    x = torch.rand(3, 6, generator=randomness.fresh(3))
    model = Usual()
    y = model(x).argmax(1)
    assert (CertifiedMargin()(model, x, y, linf(1e-4)).margin <= margins(model, x, y).amin(1)).all()


@pytest.mark.parametrize(
    ("layer", "message"),
    [(nn.Softplus(beta=-1.0), "Softplus"), (nn.AvgPool2d(2, divisor_override=-4), "AvgPool2d")],
    ids=["softplus", "pool"],
)
def test_settings_for_which_the_bounds_do_not_hold_are_named(layer, message):
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3)).eval()
    model(samples(2))
    with pytest.raises(UsageError, match=message):
        CertifiedMargin()(model, samples(2), torch.tensor([0, 1]), linf(0.1))


def test_absolute_values_are_smoothed_as_they_are_read():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = _linear([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), _linear([[1, 0], [0, 1]], [0, 0])

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x).abs())

    smooth = sg.smooth(Both(), 20.0)
    x = torch.tensor([[0.1, 0.02]])
    bound = CertifiedMargin()(smooth, x, torch.tensor([0]), linf(0.01))
    assert (bound.margin <= margins(smooth, x, torch.tensor([0])).amin(1)).all()


def test_numbers_too_small_for_their_type_are_never_certified():
    model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(2)))
    for parameter in model.parameters():
        parameter.data = 1e-25 * torch.eye(2)
    assert not CertifiedMargin()(model, torch.tensor([[0.2, 0.8]]), torch.tensor([1]), linf(0.1)).certified


def test_a_classifier_with_a_forward_of_its_own_is_not_read_as_another():
    class Coarse(sg.Classifier):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward((x * 15).round() / 15)

    model = Coarse(_linear([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]))
    with pytest.raises(UsageError, match=r"no certified bound|cannot be read"):
        CertifiedMargin()(model, torch.tensor([[9 / 15, 8 / 15]]), torch.tensor([0]), linf(0.03))
