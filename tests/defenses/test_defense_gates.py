"""The gates over every registered defense: derivatives, no dependence on the batch, no trace, passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
from steadygrad import registry
from steadygrad.attacks import FGSM, PGD, DeepFool, RandomNoise
from steadygrad.attributions import BlurSaliency
from steadygrad.defenses import (
    DEFENSES,
    TRADES,
    AdversarialTraining,
    DeepDefense,
    Defense,
    Distillation,
    GaussianNoise,
    InputGradientPenalty,
    JacobianPenalty,
    Parseval,
    Plain,
    SelectiveGradientPenalty,
    State,
)

KINDS = ("mlp", "conv", "residual", "attention")
# With points that do not follow the weights, differences of the loss are its derivative.
NOISE = RandomNoise(draws=1)
FIXED: dict[str, Defense] = {
    "plain": Plain(),
    "adversarial": AdversarialTraining(eps=0.2, attack=NOISE, clean_weight=0.3),
    "trades": TRADES(eps=0.2, attack=NOISE),
    "input_gradient": InputGradientPenalty(0.7),
    "distillation": Distillation(3.0),
    "gaussian_noise": GaussianNoise(0.3),
    "deep_defense": DeepDefense(1.5, correct=3.0, wrong=1.5, steps=3),
    "parseval": Parseval(0.3),
    "jacobian": JacobianPenalty(0.4, projections=2),
    "selective_gradient": SelectiveGradientPenalty(0.7, saliency=BlurSaliency(grid=2)),
    "sum": AdversarialTraining(eps=0.2, attack=NOISE, clean_weight=0.5)
    + InputGradientPenalty(0.5, label="uniform")
    + InputGradientPenalty(0.1, norm="l1"),
}
USUAL: dict[str, Defense] = {
    **FIXED,
    "adversarial": AdversarialTraining(eps=0.2, attack=PGD(steps=2, loss="ce"), label="predicted", clean_weight=0.5),
    "trades": TRADES(eps=0.2, attack=PGD(steps=2, loss="kl")),
    "sum": AdversarialTraining(eps=0.2, norm="l2") + TRADES(eps=0.1) + InputGradientPenalty(0.5),
}
# Points that follow the weights through a search of their own, a memory, few layers: their own tests hold their gates.
ELSEWHERE = {"certified_training", "ig_norm", "attribution_cosine", "attribution_alignment", "stable_neurons"}
NAMES = [row.name for row in DEFENSES if row.name not in ELSEWHERE]
EXTRA = {
    "uniform": InputGradientPenalty(0.5, label="uniform"),
    "l1": InputGradientPenalty(0.5, norm="l1"),
    "fgsm": AdversarialTraining(eps=0.2, attack=FGSM("ce")),
    "hot": Plain(20.0),
    "deep recomputed": DeepDefense(1.5, correct=3.0, wrong=1.5, recompute=2),
    "scaled": Parseval(0.3, scaled=True),
    "exact": JacobianPenalty(0.4, projections=None, of="probabilities"),
    "nearest": AdversarialTraining(eps=None, norm="l2", attack=DeepFool(steps=5), clean_weight=0.5, label="predicted"),
}


def _setup(kind: str, dtype: torch.dtype = torch.float64, **more: Any) -> tuple[nn.Module, Tensor, Tensor, nn.Module]:
    x, y = nets.inputs(5, dtype=dtype), torch.tensor([0, 2, 1, 1, 0])
    return nets.build(kind, dtype=dtype, **more), x, y, nets.build(kind, dtype=dtype, seed=7)


def test_every_defense_is_here() -> None:
    assert set(FIXED) == set(USUAL) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_gradient_equals_differences(kind: str, training: bool, name: str) -> None:
    model, x, y, teacher = _setup(kind)
    nets.still(model).train(training)
    gates.assert_weight_gradient(lambda: FIXED[name].loss(model, x, y, State(teacher, seed=3)).total, model)


@pytest.mark.parametrize("defense", [FIXED["input_gradient"], EXTRA["uniform"], EXTRA["l1"]])
def test_the_weight_gradient_passes_rectifiers_and_max_pooling(defense: Defense) -> None:
    model, x, y, _ = _setup("conv", activation=nn.ReLU)
    model[3] = nn.MaxPool2d(2)
    gates.assert_weight_gradient(lambda: defense.loss(model, x, y).total, model)


@pytest.mark.parametrize("defense", [*USUAL.values(), *EXTRA.values()], ids=str)
def test_the_loss_is_the_mean_over_samples(defense: Defense) -> None:
    model, x, y, teacher = _setup("residual")
    whole = defense.loss(model, x, y, State(teacher, seed=3))
    for start, stop in ((0, 2), (2, 5)):
        for name, value in defense.loss(model, x[start:stop], y[start:stop], State(teacher, 3, start)).parts.items():
            alone = [defense.loss(model, x[n : n + 1], y[n : n + 1], State(teacher, 3, n)) for n in range(start, stop)]
            torch.testing.assert_close(value, torch.stack([a.parts[name] for a in alone]).mean())
    alone = [defense.loss(model, x[n : n + 1], y[n : n + 1], State(teacher, 3, n)).total for n in range(5)]
    torch.testing.assert_close(torch.stack(alone).mean(), whole.total)
    torch.testing.assert_close(sum(whole.parts.values()), whole.total.detach())


@pytest.mark.parametrize("defense", [*USUAL.values(), *EXTRA.values()], ids=str)
@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_the_loss_leaves_no_trace(kind: str, defense: Defense) -> None:
    model, x, y, teacher = _setup(kind, torch.float32)
    state = State(teacher, seed=3)
    gates.assert_leaves_no_trace(model, lambda: defense.loss(model, x, y, state), inputs=[x, y])
    gates.assert_leaves_no_trace(
        teacher, lambda: Distillation().loss(model, x, y, State(teacher)), inputs=[x, y], failing_at=(0,)
    )


@pytest.mark.parametrize("name", NAMES)
def test_only_running_statistics_and_dropout_move_in_training_mode(name: str) -> None:
    net, x, y, teacher = _setup("residual", torch.float32)
    model = nn.Sequential(nn.Dropout(0.5), net)
    state = State(teacher, seed=3)
    gates.assert_leaves_no_trace(
        model, lambda: USUAL[name].loss(model, x, y, state), inputs=[x, y], allow=("buffers", "random")
    )


@pytest.mark.parametrize(
    ("defense", "forwards", "backwards"),
    [
        (Plain(), 1, 0),
        (InputGradientPenalty(1.0), 1, 1),
        (InputGradientPenalty(1.0) + InputGradientPenalty(1.0, label="uniform"), 1, 2),
        (Plain() + InputGradientPenalty(1.0), 1, 1),
        (Distillation(), 1, 0),
        (Parseval(1.0), 1, 0),
        (JacobianPenalty(1.0, projections=2), 1, 2),
        (JacobianPenalty(1.0, projections=None) + InputGradientPenalty(1.0), 1, 4),
        (AdversarialTraining(eps=0.1, attack=FGSM("ce")), 2, 1),
        (AdversarialTraining(eps=0.1, attack=PGD(steps=4, loss="ce")), 5, 4),
        (AdversarialTraining(eps=0.1, attack=FGSM("ce"), clean_weight=0.5), 3, 1),
        (AdversarialTraining(eps=0.1, attack=FGSM("ce"), clean_weight=0.5, label="predicted"), 4, 1),
        (AdversarialTraining(eps=0.1, attack=FGSM("ce"), clean_weight=0.5) + InputGradientPenalty(1.0), 3, 2),
        (TRADES(eps=0.1, attack=PGD(steps=4, loss="kl")), 7, 4),
    ],
    ids=str,
)
def test_the_clean_pass_is_made_once(defense: Defense, forwards: int, backwards: int) -> None:
    model, x, y, teacher = _setup("conv", torch.float32)
    with gates.counted(model) as passes:
        defense.loss(model, x, y, State(teacher))
    assert (passes["forwards"], passes["backwards"]) == (forwards, backwards)


@pytest.mark.parametrize("defense", [*USUAL.values(), *EXTRA.values()], ids=str)
def test_a_defense_is_a_value(defense: Defense) -> None:
    described = registry.describe(defense)
    name = described.pop("name")
    again = registry.build("defense", name, described)
    assert again == defense
    assert hash(again) == hash(defense)
    assert defense + Plain() == replace(Plain() + Plain(), parts=(*defense.members, Plain()))
