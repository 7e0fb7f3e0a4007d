"""The tight-frame penalty equals its formula, vanishes at tight frames, and pulls trained weights towards them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fits
import gates
import nets
from oracles import parseval as oracle
from steadygrad import registry
from steadygrad.attacks import FGSM
from steadygrad.classifier import Classifier
from steadygrad.defenses import AdversarialTraining, InputGradientPenalty, Parseval, State, Step
from steadygrad.defenses.parseval import frames
from steadygrad.errors import UsageError

X, Y = nets.inputs(3, dtype=torch.float64), torch.tensor([0, 1, 2])


def _term(model: nn.Module, defense: Parseval) -> torch.Tensor:
    return defense.terms(Step(model, X, Y, State(), input_gradients=False))["parseval"]


def _layers(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if type(m).__name__.startswith(("Linear", "Conv"))]


def _double(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make().double()


SINGLE: dict[str, Callable[[], nn.Module]] = {
    "wide linear": lambda: nn.Linear(7, 3),
    "tall linear": lambda: nn.Linear(3, 7),
    "conv1d": lambda: nn.Conv1d(2, 5, 3),
    "wide conv": lambda: nn.Conv2d(3, 4, (2, 3)),
    "tall conv": lambda: nn.Conv2d(1, 11, 3),
    "conv3d": lambda: nn.Conv3d(2, 3, 2),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(5, 5, 3, groups=5),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
}


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("make", [*SINGLE.values()], ids=SINGLE)
def test_the_penalty_of_a_layer_equals_its_formula(make: Callable[[], nn.Module], scaled: bool) -> None:
    layer = _double(make)
    term = _term(layer, Parseval(0.7, scaled))
    assert term.shape == (3,)
    assert term.tolist() == [pytest.approx(oracle.penalty([layer], 0.7, scaled=scaled), rel=1e-10)] * 3
    assert float(term[0].detach()) > 0.01
    # The other product differs by a constant: their gradients are the same.
    (slope,) = torch.autograd.grad(term.mean(), layer.weight)
    matrix = layer.weight.detach().reshape(getattr(layer, "groups", 1), -1, len(layer.weight[0].flatten()))
    matrix = matrix.requires_grad_()
    target = 1 / torch.Size(getattr(layer, "kernel_size", ())).numel() if scaled else 1.0
    wrong_side = matrix.mT @ matrix if matrix.shape[1] <= matrix.shape[2] else matrix @ matrix.mT
    other = 0.35 * (wrong_side - target * torch.eye(wrong_side.shape[1]).double()).square().sum()
    torch.testing.assert_close(torch.autograd.grad(other, matrix)[0].view_as(slope), slope)


@pytest.mark.parametrize("kind", nets.KINDS)
def test_the_penalty_of_a_network_is_the_sum_over_its_linear_and_convolutional_layers(kind: str) -> None:
    model = nets.build(kind, dtype=torch.float64)
    layers = _layers(model)
    assert len(layers) >= 3
    expected = oracle.penalty(layers, 0.2)
    assert _term(model, Parseval(0.2))[0].item() == pytest.approx(expected, rel=1e-9)
    loss = Parseval(0.2).loss(Classifier(model, classes=3), X, Y)
    assert float(loss.parts["parseval"]) == pytest.approx(expected, rel=1e-9)
    assert float(loss.parts["cross_entropy"]) == pytest.approx(F.cross_entropy(model(X), Y).item())


@pytest.mark.parametrize("make", [SINGLE["wide linear"], SINGLE["tall linear"], SINGLE["wide conv"]])
def test_a_tight_frame_costs_nothing_and_no_other_weight_does(make: Callable[[], nn.Module]) -> None:
    layer = _double(make)
    nn.init.orthogonal_(layer.weight)
    assert _term(layer, Parseval(1.0))[0].item() < 1e-20
    with torch.no_grad():
        layer.weight[0] *= 1.1
    assert _term(layer, Parseval(1.0))[0].item() > 1e-3


def test_a_scaled_convolution_does_not_stretch_its_input_and_an_unscaled_one_does() -> None:
    layer = _double(lambda: nn.Conv2d(2, 3, 3, padding=1))
    nn.init.orthogonal_(layer.weight)
    assert oracle.stretch(layer, (2, 5, 5)) > 1.1
    with torch.no_grad():
        layer.weight /= 3
    assert _term(layer, Parseval(1.0, scaled=True))[0].item() < 1e-20
    assert oracle.stretch(layer, (2, 5, 5)) <= 1


def test_a_shared_weight_counts_once_and_a_computed_one_is_followed() -> None:
    one, two = _double(lambda: nn.Linear(4, 4)), _double(lambda: nn.Linear(4, 4))
    two.weight = one.weight
    assert _term(nn.Sequential(one, two, one), Parseval(1.0))[0].item() == pytest.approx(oracle.penalty([one], 1.0))
    # Weights computed at each look, which may leave their ids to each other.
    made = [nn.utils.parametrizations.weight_norm(_double(lambda n=n: nn.Linear(4, n))) for n in (2, 3, 4, 5)]
    model = nn.Sequential(*made)
    assert len(frames(model)) == 4
    term = _term(model, Parseval(1.0))
    assert term[0].item() == pytest.approx(oracle.penalty(made, 1.0))
    gates.assert_weight_gradient(lambda: _term(model, Parseval(1.0)).mean(), model)


def test_it_adds_to_any_way_of_fitting() -> None:
    model = nets.build("conv", dtype=torch.float64)
    fitting = AdversarialTraining(eps=0.1, attack=FGSM("ce"))
    alone, penalty = fitting.loss(model, X, Y), _term(model, Parseval(0.5))[0].item()
    both = (fitting + Parseval(0.5) + InputGradientPenalty(0.1)).loss(model, X, Y)
    assert list(both.parts) == ["adversarial", "parseval", "input_gradient"]
    assert float(both.parts["adversarial"]) == float(alone.total.detach())
    assert float(both.parts["parseval"]) == pytest.approx(penalty)
    assert registry.parse("defense", "parseval:weight=0.5") == Parseval(0.5)


def test_half_precision_leaves_the_penalty_as_it_is() -> None:
    model = nets.build("conv")
    nn.init.orthogonal_(model[0].weight)
    x = X.float()
    with torch.autocast("cpu", torch.bfloat16):
        half = Parseval(1.0).loss(model, x, Y).parts["parseval"]
    assert float(half) == pytest.approx(float(Parseval(1.0).loss(model, x, Y).parts["parseval"]), rel=1e-6)
    assert Parseval(1.0).mixed_precision is True


def test_training_pulls_the_weights_towards_tight_frames() -> None:
    gaps = {}
    for defense in ("plain", "parseval:weight=3"):
        result = fits.run(defense=defense, kind="norm", epochs=20, lr=0.02, augment="none")
        gaps[defense] = oracle.penalty([m.double() for m in _layers(result.classifier)], 1.0)
        assert result.history[-1]["validation_accuracy"] > 0.8
    assert gaps["parseval:weight=3"] < 0.1 * gaps["plain"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Parseval(-1.0), "weight must be at least 0"),
        (lambda: Parseval(float("nan")), "weight must be at least 0"),
        (lambda: registry.parse("defense", "parseval:wieght=1"), "did you mean 'weight'"),
        (lambda: _term(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16)), Parseval(1.0)), "has none"),
    ],
)
def test_wrong_settings_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()
