"""Certified training: the worst margins are those of intervals written out, and what it trains can be certified."""

from __future__ import annotations

from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gates
import nets
import steadygrad as sg
from steadygrad import randomness
from steadygrad.defenses import CertifiedTraining, InputGradientPenalty, State
from steadygrad.errors import UsageError
from steadygrad.training import FitSettings


def network(activation: nn.Module | None = None) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = (nn.Flatten(), nn.Linear(16, 8), activation or nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
        return nn.Sequential(*layers).double()


def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(4, 1, 4, 4, generator=randomness.fresh(1), dtype=torch.float64), torch.tensor([0, 1, 2, 0])


def by_hand(model: nn.Sequential, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The worst cross-entropy (N,), one sample and one unit after the other."""
    out = []
    for image, label in zip(x, y.tolist(), strict=True):
        low, high = (image.flatten() - eps).clamp_min(0), (image.flatten() + eps).clamp_max(1)
        for layer in (cast(nn.Linear, model[1]), cast(nn.Linear, model[3])):
            ends = [
                [
                    sum(w * (a if (w > 0) == least else b) for w, a, b in zip(row, low, high, strict=True)) + bias
                    for row, bias in zip(layer.weight, layer.bias, strict=True)
                ]
                for least in (True, False)
            ]
            low, high = (torch.stack(end).clamp_min(0) for end in ends)
        last = cast(nn.Linear, model[5])
        falls = []
        for rival in range(3):
            row, bias = last.weight[rival] - last.weight[label], last.bias[rival] - last.bias[label]
            falls.append(sum(w * (b if w > 0 else a) for w, a, b in zip(row, low, high, strict=True)) + bias)
        out.append(torch.logsumexp(torch.stack(falls), 0))
    return torch.stack(out)


def test_the_worst_margins_are_those_of_intervals_written_out() -> None:
    model, (x, y) = network(), batch()
    found = CertifiedTraining(0.05, weight=1.0).loss(model, x, y).total
    assert torch.allclose(found, by_hand(model, x, y, 0.05).mean(), rtol=1e-10)


@pytest.mark.parametrize("linear", [0.0, 1.0])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, nn.LeakyReLU])
def test_the_weight_gradient_equals_differences(activation: type[nn.Module], linear: float) -> None:
    model, (x, y) = nets.still(network(activation())), batch()
    defense = CertifiedTraining(0.05, linear=linear)
    state = State(memory=defense.remember(3, model, None, State()))  # type: ignore[arg-type]
    gates.assert_weight_gradient(lambda: defense.loss(model, x, y, state).total, model)


def test_the_bound_of_the_loss_is_above_every_attack_and_linear_bounds_are_below() -> None:
    model, (x, y) = network(), batch()
    grown = State(memory={"certified training": torch.tensor(0.5)})
    by_intervals = CertifiedTraining(0.1, weight=1.0).loss(model, x, y, grown).parts["certified"]
    by_lines = CertifiedTraining(0.1, weight=1.0, linear=1.0).loss(model, x, y, grown).parts["certified"]
    adversarial = sg.attacks.PGD(steps=20, loss="ce")(model, x, y, sg.linf(0.05)).inputs
    assert 0.5 * F.cross_entropy(model(adversarial), y) <= by_lines < by_intervals


def test_radius_and_weight_grow_over_the_ramp() -> None:
    defense, model, (x, y) = CertifiedTraining(0.1, ramp=4), network(), batch()
    shares = [float(defense.remember(e, model, None, State())["certified training"]) for e in range(6)]  # type: ignore[arg-type]
    assert shares == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    losses = [
        defense.loss(model, x, y, State(memory={"certified training": torch.tensor(share)})).parts["certified"] / share
        for share in shares[:4]
    ]
    assert losses == sorted(losses)


def test_what_it_trains_is_certified_and_a_penalty_may_stand_beside_it() -> None:
    train, test = sg.data.load("digits", "train"), sg.data.load("digits", "test").take(100)
    x, y = test.tensors()
    share = {}
    for name, defense in {
        "plain": sg.defenses.Plain(),
        "certified": CertifiedTraining(0.1, ramp=8) + InputGradientPenalty(0.001),
    }.items():
        model = sg.models.build("mlp", train.shape, train.classes, hidden=(64, 32), seed=0)
        trained = sg.fit(model, defense, train, settings=FitSettings(epochs=14, lr=3e-3)).classifier
        share[name] = float(sg.bounds.CertifiedMargin()(trained, x, y, sg.linf(0.1)).certified.double().mean())
    assert share["certified"] > 0.5 > share["plain"] + 0.2, share


def test_batch_norm_and_dropout_count_as_in_evaluation_mode() -> None:
    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, self.training)

    layers = (nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8, momentum=0.0), nn.ReLU(), nn.Dropout(0.5), Functional())
    model, (x, y) = nn.Sequential(*layers, nn.Linear(8, 3)).double(), batch()
    defense = CertifiedTraining(0.05, weight=1.0)
    evaluated = defense.loss(model.eval(), x, y).parts["certified"]
    assert torch.equal(defense.loss(model.train(), x, y).parts["certified"], evaluated)


def test_a_layer_without_bounds_is_named() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Softmax(1), nn.Linear(16, 3)).double()
    with pytest.raises(UsageError, match="Softmax"):
        CertifiedTraining(0.1).loss(model, *batch())
