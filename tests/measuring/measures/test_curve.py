"""Accuracy against eps: the way down finds what separate attacks at every radius find, for fewer passes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import nets
import steadygrad as sg
from audit.victims import Counting, Halfspace, features
from steadygrad import randomness
from steadygrad.attacks import BIM, FGSM, PGD, Attack
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.measuring.measures.curve import GRID, Curve, fitted_grid, smallest_in_grid
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.table import Table

RADII = (0.02, 0.05, 0.08, 0.12, 0.2, 0.3, 0.45)


@pytest.mark.parametrize(
    ("norm", "eps", "sizes", "added"),
    [
        ("linf", 0.08, [0.2, 0.02], 0),
        ("linf", 4 / 255, [0.06 / 255, 0.1 / 255, 0.3 / 255], 4),
        ("l2", 0.5, [0.0, math.inf, 0.02], 2),
        ("linf", 0.08, [], 0),
        ("linf", 0.08, [0.0, 0.0], 0),
        ("linf", 1.0, [1e-9], 12),
        ("l0", 8, [0.1], 0),
        ("l0", 40, [1.0], 2),
    ],
)
def test_a_fitted_grid_reaches_to_where_samples_fall(norm: Any, eps: float, sizes: list[float], added: int) -> None:
    grid = fitted_grid(sg.Threat(norm, eps), np.array(sizes))
    usual = [eps * factor for factor in GRID]
    assert list(grid[added:]) == pytest.approx(usual)
    assert list(grid[:added]) == pytest.approx([usual[0] / 2**k for k in range(added, 0, -1)])


def _model(kind: str = "mlp") -> Classifier:
    return Classifier(nets.build(kind), mean=0.5, std=0.1, name="tiny")


def _batch(model: nn.Module, count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    x = nets.inputs(count)
    y = model(x).argmax(1)
    y[::8] = (y[::8] + 1) % 3
    return x, y, randomness.sample_seeds(count, randomness.fresh(4))


def _separately(
    attack: Attack, model: nn.Module, x: Tensor, y: Tensor, seeds: Tensor, threat: sg.Threat
) -> tuple[Tensor, int]:
    """The first place of the grid that any of one attack per radius reaches, and the forwards they cost."""
    best, forwards = torch.full((len(x),), len(RADII)), 0
    for eps in RADII:
        found = attack(model, x, y, threat.at(eps), generator=seeds)
        forwards += int(found.forwards.sum())
        for i in found.success.nonzero().squeeze(1).tolist():
            size = float(found.distance[i])
            place = -1 if size == 0 else next(k for k, r in enumerate(RADII) if size <= r * (1 + 1e-5))
            best[i] = min(int(best[i]), place)
    return best, forwards


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", [PGD(steps=15), BIM(steps=15)], ids=str)
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_curve_equals_separate_attacks_at_every_radius(kind: str, attack: Attack, norm: str) -> None:
    model = _model(kind)
    x, y, seeds = _batch(model)
    threat = sg.Threat(norm)  # type: ignore[arg-type]
    want, _ = _separately(attack, model, x, y, seeds, threat)
    got, _, _ = smallest_in_grid(attack, model, x, y, threat, RADII, seeds)
    assert len(want.unique()) >= 4  # the grid is met in several places
    assert bool((got >= want).all())  # it tried some of the same attacks, none that they did not
    assert bool((got == want).float().mean() >= 0.95)
    for place in range(-1, len(RADII)):
        assert float((got > place).float().mean()) == pytest.approx(float((want > place).float().mean()), abs=0.051)


def test_the_curve_of_a_linear_model_is_its_closed_form() -> None:
    w, bias = [1.0, -2.0, 0.5], -0.2
    x = 0.45 + 0.1 * torch.rand(50, 3, generator=torch.Generator().manual_seed(3))
    score = x.double() @ torch.tensor(w, dtype=torch.float64) - bias
    y = (score > 0).long()
    nearest = score.abs() / 3.5  # linf distance to the boundary
    grid = [float(q) for q in nearest.quantile(torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64))]
    got, _, _ = smallest_in_grid(FGSM(), Halfspace(w, bias), x, y, sg.linf(), grid, torch.arange(50))
    want = torch.searchsorted(torch.tensor(grid, dtype=torch.float64), nearest)
    assert sorted(set(got.tolist())) == [0, 1, 2, 3, 4, 5]
    assert got.tolist() == want.tolist()


def test_passes_are_counted_and_fewer_than_one_attack_per_radius() -> None:
    attack, model = PGD(steps=10), _model()
    x, y, seeds = _batch(model)
    _, separate = _separately(attack, model, x, y, seeds, sg.linf())
    counting = Counting(model)
    _, forwards, backwards = smallest_in_grid(attack, counting, x, y, sg.linf(), RADII, seeds)
    assert forwards.shape == backwards.shape == (len(x),)
    assert 0 <= counting.rows - int(forwards.sum()) <= counting.calls  # a judge of one adds the clean input
    # Few steps make a success no cheaper than a failure; how it is with forty: tests/attacks/test_sweep.py.
    assert int(forwards.sum()) < 0.8 * separate
    assert bool((backwards <= forwards).all())


def test_no_sample_resists_more_than_one_attack() -> None:
    grid = [0.01 * i for i in range(1, 16)]
    x = torch.linspace(0.3, 0.5, 30)[:, None]  # the boundary is out of reach, then nearer and nearer
    model, failures = Halfspace([1.0], 0.52), torch.zeros(30, dtype=torch.int64)

    class Watched(FGSM):
        def __call__(self, model, x, y, threat, **rest):  # type: ignore[no-untyped-def]
            found = super().__call__(model, x, y, threat, **rest)
            failures[rest["generator"]] += ~found.success
            return found

    place, _, _ = smallest_in_grid(Watched(), model, x, torch.zeros(30).long(), sg.linf(), grid, torch.arange(30))
    assert len(place.unique()) > 10
    assert torch.equal(failures, (place > 0).long())


@pytest.mark.parametrize("at", [0.0, 0.03, 0.05, 1.0])
def test_where_the_attack_is_known_to_fail_it_is_not_tried_again(at: float) -> None:
    model = _model()
    x, y, seeds = _batch(model)
    attack, threat = PGD(steps=5), sg.linf()
    place, _, backwards = smallest_in_grid(attack, model, x, y, threat, RADII, seeds)
    stood = torch.where(attack(model, x, y, threat.at(at), generator=seeds).success, 0.0, at) if at else torch.zeros(40)
    again, _, fewer = smallest_in_grid(attack, model, x, y, threat, RADII, seeds, stood=stood)
    beyond = torch.tensor([*RADII, torch.inf])[place.clamp_min(0)] > stood
    assert torch.equal(again[beyond], place[beyond])
    assert bool((fewer <= backwards).all())
    ended = (place > 0) & (stood == torch.tensor([0.0, *RADII])[place.clamp_min(0)]) & (stood > 0)
    # Steps that only show again that it fails are left out: five for each sample that this attack leaves standing.
    assert torch.equal(backwards[ended] - fewer[ended], torch.full_like(fewer[ended], 5))
    assert bool(ended.any()) == (at in RADII)


def test_clean_mistakes_fall_at_zero_and_cost_one_look() -> None:
    model = _model()
    x, y, seeds = _batch(model)
    place, _, backwards = smallest_in_grid(PGD(steps=5), model, x, y, sg.linf(), RADII, seeds)
    mistake = model(x).argmax(1) != y
    assert mistake.sum() == 5
    assert torch.equal(place == -1, mistake)
    assert bool((backwards[mistake] == 0).all())


def test_a_sample_that_nothing_breaks_is_censored() -> None:
    data = features([[0.5], [0.5]], [0, 1])
    found = Runner({"m": Halfspace([1.0], 0.6)}, data).run(Curve(FGSM(), sg.linf(0.1), (0.01, 0.05)), "m")
    assert found["radius"].tolist() == [float("inf"), 0.0]
    assert _points(found, [0.01, 0.05]) == [0.5, 0.5, 0.5]


def _points(found: Table, grid: Sequence[float]) -> list[float]:
    return [float((found["radius"] > eps).mean()) for eps in (0.0, *grid)]


def _runner(batch_size: int = 200) -> Runner:
    model = _model()
    x, y, _ = _batch(model)
    data = Dataset(x, y, ("a", "b", "c"), tuple(f"s{i}" for i in range(len(x))))
    return Runner({"m": model}, data, batch_size=batch_size)


def test_points_fall_from_clean_accuracy() -> None:
    found = _runner().run(Curve(PGD(steps=5), sg.linf(0.1), RADII), "m")
    points = _points(found, RADII)
    assert points[0] == (found["clean_prediction"] == found["label"]).mean() == 35 / 40
    assert all(b <= a for a, b in pairwise(points))
    assert points[-1] < points[0]
    assert set(found["radius"]) <= {0.0, *RADII, float("inf")}
    assert found["clean_confidence"].min() > 1 / 3


def test_the_curve_does_not_depend_on_the_batch_size_and_is_made_once() -> None:
    frames = []
    for batch_size in (40, 7):
        runner, measure = _runner(batch_size), Curve(PGD(steps=5), sg.linf(0.1), RADII)
        frames.append(runner.run(measure, "m").frame)
        again = Runner(runner.models, runner.data, runner.store, batch_size=batch_size)
        pd.testing.assert_frame_equal(again.run(measure, "m").frame, runner.run(measure, "m").frame)
        assert runner.store.computed == 1
    pd.testing.assert_frame_equal(*frames, check_exact=False, rtol=1e-4)


def test_what_other_attacks_found_counts() -> None:
    runner, measure = _runner(), Curve(FGSM(), sg.linf(0.1), RADII)
    alone = runner.run(measure, "m")["radius"]
    known = np.where(alone > 0.05, 0.049, np.inf)
    known[alone == 0] = 0.0
    beside = runner.run(measure, "m", given={"known": known})["radius"]
    assert (alone > 0.05).sum() > 5
    assert (beside <= np.minimum(alone, 0.05)).all()
    assert (beside[alone <= 0.05] == alone[alone <= 0.05]).all()
    assert (beside >= 0).all()


@pytest.mark.parametrize("grid", [[], [0.0, 0.1], [0.2, 0.1], [0.1, 0.1], [-0.1, 0.1]])
def test_a_grid_that_does_not_rise_from_above_zero_is_refused(grid: list[float]) -> None:
    with pytest.raises(UsageError, match="must be positive and rising"):
        Curve(FGSM(), sg.linf(0.1), tuple(grid))


def test_the_default_grid_holds_the_audited_radius() -> None:
    assert 1.0 in GRID
