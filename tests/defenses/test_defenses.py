"""The losses equal their formulas; sums compose by one rule; wrong settings are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import nets
from oracles import defenses as oracle
from steadygrad import registry
from steadygrad.attacks import BIM, FGSM, PGD
from steadygrad.classifier import Classifier
from steadygrad.defenses import (
    TRADES,
    AdversarialTraining,
    Defense,
    Distillation,
    InputGradientPenalty,
    Plain,
    State,
    Step,
    Sum,
    parse,
)
from steadygrad.errors import UsageError


@pytest.fixture
def setup() -> tuple[nn.Module, Tensor, Tensor]:
    x, y = nets.inputs(4, dtype=torch.float64), torch.tensor([0, 2, 1, 0])
    return nets.build("conv", dtype=torch.float64), x, y


@pytest.mark.parametrize("label", ["true", "uniform"])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_gradient_penalty_equals_its_formula(
    setup: tuple[nn.Module, Tensor, Tensor], label: str, norm: str
) -> None:
    model, x, y = setup
    parts = (
        registry.build("defense", "input_gradient", {"weight": 3, "label": label, "norm": norm}).loss(model, x, y).parts
    )
    assert float(parts["cross_entropy"]) == pytest.approx(oracle.cross_entropy(model, x, y), rel=1e-9)
    assert float(parts["input_gradient"]) == pytest.approx(
        3 * oracle.input_gradient(model, x, y, label, norm), rel=1e-6
    )


@pytest.mark.parametrize("temperature", [1.0, 30.0])
def test_plain_equals_its_formula(setup: tuple[nn.Module, Tensor, Tensor], temperature: float) -> None:
    model, x, y = setup
    loss = Plain(temperature).loss(model, x, y)
    assert loss.total.item() == pytest.approx(oracle.cross_entropy(model, x, y, temperature), rel=1e-9)


@pytest.mark.parametrize("label", ["true", "predicted"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_adversarial_training_equals_its_formula(
    setup: tuple[nn.Module, Tensor, Tensor], share: float, label: str
) -> None:
    model, x, y = setup
    defense = registry.build(
        "defense", "adversarial", {"eps": 0.1, "attack": FGSM("ce"), "clean_weight": share, "label": label}
    )
    away = y if label == "true" else model(x).argmax(1)
    assert label == "true" or not torch.equal(away, y), "the predictions must differ from the labels somewhere"
    points = oracle.fgsm(model, x, away.tolist(), 0.1)
    want = share * oracle.cross_entropy(model, x, y) + (1 - share) * oracle.cross_entropy(model, points, y)
    assert defense.loss(model, x, y).total.item() == pytest.approx(want, rel=1e-7)


def test_trades_equals_its_formula(setup: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = setup
    points = oracle.fgsm(model, x, y.tolist(), 0.1)
    want = oracle.cross_entropy(model, x, y) + 5 * oracle.divergence(model, x, points)
    loss = TRADES(eps=0.1, beta=5.0, attack=FGSM("ce")).loss(model, x, y)
    assert loss.total.item() == pytest.approx(want, rel=1e-7)
    assert float(loss.parts["divergence"]) > 1e-3


def test_distillation_equals_its_formula(setup: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = setup
    teacher = nets.build("conv", dtype=torch.float64, seed=9)
    loss = Distillation(4.0).loss(model, x, y, State(teacher))
    assert loss.total.item() == pytest.approx(oracle.distillation(model, teacher, x, 4.0), rel=1e-9)


def test_the_adversarial_examples_are_allowed_and_follow_the_bounds_of_the_model() -> None:
    seen: list[Tensor] = []
    inner = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    model = Classifier(inner, classes=3, bounds=(-1.0, 1.0))
    inner.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    x, y = 2 * nets.inputs(6) - 1, torch.tensor([0, 1, 2, 0, 1, 2])
    AdversarialTraining(eps=0.5, attack=PGD(steps=3, loss="ce")).loss(model, x, y)
    assert float(seen[-1].min()) >= -1
    assert float((seen[-1] - x).abs().max()) <= 0.5 + 1e-6
    assert float(seen[-1].min()) < -0.2
    assert float((seen[-1] - x).abs().max()) > 0.4


def test_each_step_seed_gives_other_adversarial_examples_and_the_same_one_the_same() -> None:
    model, x, y = nets.build("mlp"), nets.inputs(4), torch.tensor([0, 1, 2, 0])
    defense = AdversarialTraining(eps=0.2, attack=PGD(steps=1, loss="ce"))
    losses = [defense.loss(model, x, y, State(seed=s)).total.item() for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


class _Data(Defense):
    def terms(self, step):  # type: ignore[no-untyped-def]
        return {"data": step.logits.square().sum(1)}

    fits = True


PENALTY, OTHER = InputGradientPenalty(1.0), InputGradientPenalty(2.0, label="uniform")


@pytest.mark.parametrize(
    ("defense", "parts"),
    [
        (PENALTY, ["cross_entropy", "input_gradient"]),
        (PENALTY + OTHER, ["cross_entropy", "input_gradient", "input_gradient 2"]),
        (Plain() + PENALTY, ["cross_entropy", "input_gradient"]),
        (PENALTY + _Data(), ["input_gradient", "data"]),
        (AdversarialTraining(eps=0.1, clean_weight=0.5) + PENALTY, ["clean", "adversarial", "input_gradient"]),
        (TRADES(eps=0.1) + PENALTY + OTHER, ["cross_entropy", "divergence", "input_gradient", "input_gradient 2"]),
    ],
    ids=str,
)
def test_cross_entropy_is_added_once_where_no_member_fits_the_data(defense: Defense, parts: list[str]) -> None:
    model, x, y = nets.build("mlp"), nets.inputs(3), torch.tensor([0, 1, 2])
    loss = defense.loss(model, x, y)
    assert list(loss.parts) == parts
    torch.testing.assert_close(sum(loss.parts.values()), loss.total.detach())


def test_plain_plus_a_penalty_is_the_penalty() -> None:
    model, x, y = nets.build("mlp"), nets.inputs(3), torch.tensor([0, 1, 2])
    assert torch.equal((Plain() + PENALTY).loss(model, x, y).total, PENALTY.loss(model, x, y).total)


def test_sums_are_flat_and_hand_on_what_their_members_need() -> None:
    total = (Plain() + PENALTY) + (Distillation(5.0) + OTHER)
    assert total == Sum((Plain(), PENALTY, Distillation(5.0), OTHER))
    assert total.teacher == Plain(5.0)
    assert total.mixed_precision == PENALTY.mixed_precision
    assert (Plain() + Distillation()).mixed_precision is True
    with pytest.raises(TypeError):
        Plain() + 1  # type: ignore[operator]


def test_a_flag_may_name_a_sum() -> None:
    assert parse("plain + input_gradient:weight=1e+1,norm=l1") == Plain() + InputGradientPenalty(10.0, norm="l1")
    assert parse("distillation") == Distillation()


@pytest.mark.parametrize(("kind", "half", "least"), [("mlp", torch.bfloat16, 0.3), ("conv", torch.float16, 1.0)])
def test_half_precision_spoils_the_second_derivatives_of_a_certain_network(
    kind: str, half: torch.dtype, least: float
) -> None:
    model, x = nets.build(kind), nets.inputs(4)
    with torch.no_grad():
        model[-1].weight.mul_(40)
    y, slopes = model(x).argmax(1), []
    for enabled in (False, True):
        with torch.autocast("cpu", half, enabled=enabled):
            step = Step(model, x, y, State(), input_gradients=True)
            penalty = PENALTY.terms(step)["input_gradient"].mean()
        parts = torch.autograd.grad(penalty, [*model.parameters()], allow_unused=True)
        slopes.append(torch.cat([part.flatten() for part in parts if part is not None]))
    assert float((slopes[1] - slopes[0]).norm() / slopes[0].norm()) >= least


Make = Callable[[], object]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AdversarialTraining(eps=0.0), "eps must be positive"),
        (lambda: AdversarialTraining(eps=float("nan")), "eps must be positive"),
        (lambda: AdversarialTraining(eps=0.1, clean_weight=1.0), "clean_weight must be within"),
        (lambda: AdversarialTraining(eps=0.1, norm="l0"), "PGD works for linf, l2, l1, not for 'l0'"),
        (lambda: AdversarialTraining(eps=0.1, label="ture"), "did you mean 'true'"),  # type: ignore[arg-type]
        (lambda: TRADES(eps=0.1, beta=-1.0), "beta must be positive"),
        (lambda: TRADES(eps=0.1, attack=PGD(loss="kl", random_start=False)), "must start away from the input"),
        (lambda: TRADES(eps=0.1, attack=BIM(loss="kl")), "must start away from the input"),
        (lambda: InputGradientPenalty(-1.0), "weight must be at least 0"),
        (lambda: InputGradientPenalty(1.0, label="unifrom"), "did you mean 'uniform'"),  # type: ignore[arg-type]
        (lambda: InputGradientPenalty(1.0, norm="l3"), "there is no norm 'l3'"),  # type: ignore[arg-type]
        (lambda: Distillation(0.0), "temperature must be positive"),
        (lambda: Plain(float("inf")), "temperature must be positive"),
        (lambda: Sum(()), "at least one member"),
        (lambda: Distillation(2.0) + Distillation(3.0), "different teachers"),
        (lambda: parse("plain+trade:eps=1"), "did you mean 'trades'"),
        (lambda: parse("input_gradient:weigth=1"), "did you mean 'weight'"),
        (lambda: Distillation().loss(nets.build(), nets.inputs(1), torch.tensor([0])), "needs a teacher"),
    ],
)
def test_wrong_settings_are_refused(make: Make, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()
