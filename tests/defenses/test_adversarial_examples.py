"""Training on the points of single steps and of searches for the nearest wrong point."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gates
import nets
from oracles import deepfool
from oracles import defenses as oracle
from steadygrad import registry
from steadygrad.attacks import DDN, FGSM, PGD, DeepFool
from steadygrad.classifier import Classifier
from steadygrad.defenses import AdversarialTraining, State, parse
from steadygrad.errors import UsageError
from steadygrad.threat import l2

DEEPFOOL = DeepFool(steps=5, candidates=2)


def _setup(kind: str = "mlp", count: int = 6) -> tuple[nn.Module, Tensor, Tensor]:
    model = nets.build(kind, dtype=torch.float64)
    x = 0.3 + 0.4 * nets.inputs(count, dtype=torch.float64)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 3  # one mistake
    return model, x, y


@pytest.mark.parametrize("label", ["true", "predicted"])
def test_deepfool_training_equals_its_formula(label: str) -> None:
    inner, x, y = _setup()
    # The oracle knows no bounds: they are far away.
    model = Classifier(inner, classes=3, bounds=(-10.0, 10.0))
    away = y if label == "true" else model(x).argmax(1)
    flat = nn.Sequential(nn.Unflatten(1, (1, 4, 4)), model)
    changes = [
        deepfool.change(flat, row.flatten().numpy(), int(label), "l2", overshoot=0.005, least=2e-5)
        for row, label in zip(x, away)
    ]
    points = x + torch.from_numpy(np.stack(changes)).view_as(x)
    assert float(points.abs().max()) < 10
    moved = [float(np.linalg.norm(c)) for c in changes]
    assert min(moved[1:]) > 1e-3
    # A clean mistake is its own nearest wrong point, unless the model's own label is led away from.
    assert (moved[0] > 1e-3) == (label == "predicted")
    want = 0.5 * oracle.cross_entropy(model, x, y) + 0.5 * oracle.cross_entropy(model, points, y)
    defense = registry.build(
        "defense",
        "adversarial",
        {"eps": None, "norm": "l2", "attack": DeepFool(), "clean_weight": 0.5, "label": label},
    )
    assert defense.loss(model, x, y).total.item() == pytest.approx(want, rel=1e-6)


def test_a_radius_draws_the_nearest_wrong_point_back_into_the_ball() -> None:
    model, x, y = _setup()
    seen: list[Tensor] = []
    with model.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach())):
        AdversarialTraining(eps=None, norm="l2", attack=DEEPFOOL).loss(model, x, y)
        free = seen[-1]
        AdversarialTraining(eps=0.05, norm="l2", attack=DEEPFOOL).loss(model, x, y)
    ball, way = seen[-1], (free - x).flatten(1)
    sizes, short = way.norm(dim=1), (ball - x).flatten(1)
    assert float(sizes.max()) > 0.05 > float(sizes.min())
    torch.testing.assert_close(short.norm(dim=1), sizes.clamp_max(0.05))
    torch.testing.assert_close(short, way * (short.norm(dim=1) / sizes.clamp_min(1e-12))[:, None])


def test_the_points_of_a_search_are_wrong_and_no_further_than_needed() -> None:
    model, x, y = _setup()
    seen: list[Tensor] = []
    for attack in (DeepFool(), DDN(steps=30)):
        with model.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach())):
            AdversarialTraining(eps=None, norm="l2", attack=attack).loss(model, x, y, State(seed=3))
        points = seen[-1]
        assert bool((model(points).argmax(1) != y).all())
        found = attack(model, x, y, l2())
        assert bool(((points - x).flatten(1).norm(dim=1) <= found.distance * (1 + 1e-6) + 1e-12).all())


def test_single_step_and_search_are_written_as_flags() -> None:
    assert parse("adversarial:eps=0.1,attack=fgsm") == AdversarialTraining(eps=0.1, attack=FGSM())
    assert parse("adversarial:eps=null,norm=l2,attack=deepfool,clean_weight=0.5") == AdversarialTraining(
        eps=None, norm="l2", attack=DeepFool(), clean_weight=0.5
    )
    described = registry.describe(AdversarialTraining(eps=None, attack=DeepFool(steps=3)))
    assert described["eps"] is None
    assert registry.build("defense", described.pop("name"), described).attack.steps == 3


def test_each_sample_costs_what_its_search_costs() -> None:
    model, x, y = _setup("conv")
    defense = AdversarialTraining(eps=None, norm="l2", attack=DeepFool(steps=1, candidates=2), clean_weight=0.5)
    with gates.counted(model) as passes:
        defense.loss(model, x, y)
    # One step towards two candidates; then the clean and the adversarial pass that are trained on.
    assert passes["backwards"] == 2
    assert passes["forwards"] <= 6


@pytest.mark.parametrize("attack", [FGSM("ce"), PGD(steps=2)], ids=str)
def test_without_a_radius_only_a_search_for_the_nearest_will_do(attack: FGSM | PGD) -> None:
    with pytest.raises(UsageError, match=r"needs a radius: give eps; .*deepfool"):
        AdversarialTraining(eps=None, attack=attack)
    with pytest.raises(UsageError, match="DeepFool works for linf, l2, not for 'l1'"):
        AdversarialTraining(eps=None, norm="l1", attack=DeepFool())
    with pytest.raises(UsageError, match="eps must be positive"):
        AdversarialTraining(eps=-1.0, attack=DeepFool())
