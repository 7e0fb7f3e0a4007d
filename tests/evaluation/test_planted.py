"""Planted points surely exist, chance does not find them, a gradient does, and what hides gradients hides them."""

from __future__ import annotations

import pytest
import torch

import nets
import steadygrad as sg
from evaluation import victims
from steadygrad.attacks import BIM, FGSM, PGD, RandomNoise
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.evaluation.planted import REACH, Plant, Planted, finds_planted, plant
from steadygrad.evaluation.records import Cells
from steadygrad.evaluation.robustness import Bench

THREATS = [sg.linf(0.1), sg.l2(0.5), sg.l1(2.0)]
SEEDS = torch.arange(40)


@pytest.fixture(scope="module")
def x(digits: Dataset) -> torch.Tensor:
    return digits.take(40).tensors()[0]


def _share(made: Plant, x: torch.Tensor, attack: sg.attacks.Attack, threat: sg.Threat) -> float:
    x = x[made.sure]
    labels = torch.zeros(len(x), dtype=torch.int64)
    return float(attack(made.model, x, labels, threat).success.float().mean())


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_the_points_exist_by_evaluation(honest: Classifier, x: torch.Tensor, threat: sg.Threat) -> None:
    made = plant(honest, x, SEEDS, threat)
    assert made.sure.float().mean() >= 0.95
    near = threat.at(REACH * threat.eps)
    points, clean = made.points[made.sure], x[made.sure]
    assert near.allows(clean, points).all()
    for size in (1, 7, len(points)):
        assert all((made.model(part).argmax(1) == 1).all() for part in points.split(size))
        assert all((made.model(part).argmax(1) == 0).all() for part in clean.split(size))


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_gradient_finds_them_and_chance_does_not(honest: Classifier, x: torch.Tensor, threat: sg.Threat) -> None:
    made = plant(honest, x, SEEDS, threat)
    assert _share(made, x, PGD(), threat) >= 0.97
    assert _share(made, x, RandomNoise(draws=20), threat) <= 0.05


def test_what_hides_gradients_hides_them(honest: Classifier, x: torch.Tensor) -> None:
    threat, stairs = sg.linf(0.1), victims.Quantized(honest)
    made = plant(stairs, x, SEEDS, threat)
    assert made.sure.float().mean() > 0.5
    assert _share(made, x, PGD(), threat) < 0.6


def test_scores_are_as_written(honest: Classifier, x: torch.Tensor) -> None:
    ways, bars = torch.randn(40, 10, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, 40)
    model = Planted(honest, x, ways, bars)
    want = (honest(x) * ways).sum(1) - bars
    assert torch.allclose(model(x), torch.stack([-want, want], 1) / 2, atol=1e-5)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    near = (x + 0.01).clamp(0, 1)[order]  # the anchor is found again in any order
    want = (honest(near) * ways[order]).sum(1) - bars[order]
    assert torch.allclose(model(near)[:, 1] - model(near)[:, 0], want, atol=1e-5)


def test_a_constant_added_to_all_logits_means_nothing(honest: Classifier, x: torch.Tensor) -> None:
    made = plant(honest, x, SEEDS, sg.linf(0.1))
    assert torch.allclose(made.model.directions.sum(1), torch.zeros(40), atol=1e-5)
    assert torch.allclose(made.model.directions.norm(dim=1), torch.ones(40), atol=1e-5)


def test_twins_among_the_samples_do_no_harm(honest: Classifier, x: torch.Tensor) -> None:
    made = plant(honest, x[:1].expand(6, -1, -1, -1), SEEDS[:6], sg.linf(0.1))
    points = made.points[made.sure]
    assert len(points) >= 1
    assert (made.model(points).argmax(1) == 1).all()


@pytest.mark.parametrize(
    ("attack", "passed"), [(PGD(steps=10), True), (FGSM(), True), (BIM(steps=2, step=0.02), False)], ids=str
)
def test_the_check_counts_what_is_missed(
    honest: Classifier, digits: Dataset, attack: sg.attacks.Attack, passed: bool
) -> None:
    cells, data = Cells(), digits.take(60)
    check = finds_planted(Bench(data, cells), honest, "m", attack, sg.linf(0.1), 60)
    (records,) = cells._memory.values()
    assert check.passed is passed
    assert check.value == pytest.approx((~records.frame["success"]).mean())
    assert set(records.frame["model"]) == {"m"}
    assert finds_planted(Bench(data, cells), honest, "m", attack, sg.linf(0.1), 60) == check
    assert cells.computed == 1


def test_a_model_that_does_not_move_has_nothing_to_plant() -> None:
    data = Dataset(nets.inputs(10), torch.zeros(10, dtype=torch.int64), ("a", "b"), tuple("abcdefghij"))
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(data.images[0].numel(), 3))
    torch.nn.init.zeros_(flat[1].weight)
    check = finds_planted(Bench(data), flat, "m", PGD(), sg.linf(0.1), 10)
    assert check.passed is None
    assert "10 of 10" in check.text
    assert finds_planted(Bench(data), flat, "m", PGD(), sg.l0(3), 10).passed is None


def test_the_model_is_left_as_it_was(x: torch.Tensor) -> None:
    model = sg.models.build("mlp", (1, 8, 8), 10, hidden=(8,)).train()
    state = torch.get_rng_state()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    plant(model, x, SEEDS, sg.linf(0.1))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
