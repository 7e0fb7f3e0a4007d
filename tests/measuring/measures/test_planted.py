"""Planted points surely exist, chance does not find them, a gradient does, and what hides gradients hides them."""

from __future__ import annotations

import pytest
import torch

import nets
import steadygrad as sg
from audit import victims
from steadygrad.attacks import BIM, FGSM, PGD, RandomNoise
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.measuring.measures.planted import REACH, Plant, Planted, PlantedFound, plant
from steadygrad.measuring.runner import Runner

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


def _found(model: torch.nn.Module, data: Dataset, attack: sg.attacks.Attack) -> tuple[float, float]:
    """The share of points that are sure, and of these the share that the attack misses."""
    table = Runner({"m": model}, data).run(PlantedFound(attack, sg.linf(0.1)), "m")
    assert not (table["found"] & ~table["sure"]).any()
    return float(table["sure"].mean()), float((~table["found"])[table["sure"]].mean())


@pytest.mark.parametrize(
    ("attack", "low", "high"), [(PGD(steps=10), 0, 0.05), (FGSM(), 0, 0.05), (BIM(steps=2, step=0.02), 0.2, 1)], ids=str
)
def test_what_is_missed_is_written_down(
    honest: Classifier, digits: Dataset, attack: sg.attacks.Attack, low: float, high: float
) -> None:
    sure, missed = _found(honest, digits.take(60), attack)
    assert sure > 0.9
    assert low <= missed <= high


def test_the_points_do_not_depend_on_the_attack_or_the_batch(honest: Classifier, digits: Dataset) -> None:
    data, threat = digits.take(30), sg.linf(0.1)
    tables = [
        Runner({"m": honest}, data, batch_size=size).run(PlantedFound(attack, threat), "m")
        for size, attack in ((200, PGD(steps=10)), (7, PGD(steps=10)), (200, FGSM()))
    ]
    assert all((table["sure"] == tables[0]["sure"]).all() for table in tables)
    assert (tables[0]["found"] == tables[1]["found"]).all()


def test_a_model_that_does_not_move_has_nothing_to_plant() -> None:
    data = Dataset(nets.inputs(10), torch.zeros(10, dtype=torch.int64), ("a", "b"), tuple("abcdefghij"))
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(data.images[0].numel(), 3))
    torch.nn.init.zeros_(flat[1].weight)
    table = Runner({"m": flat}, data).run(PlantedFound(PGD(), sg.linf(0.1)), "m")
    assert not table["sure"].any()
    assert not table["found"].any()


def test_the_model_is_left_as_it_was(x: torch.Tensor) -> None:
    model = sg.models.build("mlp", (1, 8, 8), 10, hidden=(8,)).train()
    state = torch.get_rng_state()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    plant(model, x, SEEDS, sg.linf(0.1))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
