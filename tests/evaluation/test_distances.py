"""Smallest changes against closed forms; what nothing breaks is censored, and clean mistakes are left out."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import nn

import steadygrad as sg
from evaluation.victims import Halfspace, features
from steadygrad.attacks import DDN, FGSM, FMN, PGD, DeepFool
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.evaluation.distances import distances, nearest
from steadygrad.evaluation.robustness import Bench

W, BIAS = [1.0, -2.0, 0.5], -0.2


def _plane(count: int = 60) -> tuple[Halfspace, Dataset, torch.Tensor]:
    x = 0.35 + 0.3 * torch.rand(count, 3, generator=torch.Generator().manual_seed(3))
    score = x.double() @ torch.tensor(W, dtype=torch.float64) - BIAS
    return Halfspace(W, BIAS), features(x.tolist(), (score > 0).long().tolist()), score.abs()


@pytest.mark.parametrize(
    ("norm", "dual", "room"), [("linf", 3.5, 0.03), ("l2", math.sqrt(5.25), 0.03), ("l1", 2.0, 0.5)]
)
def test_quantiles_of_a_half_space_are_those_of_the_distance_to_it(norm: Any, dual: float, room: float) -> None:
    model, data, score = _plane()
    found = distances(Bench(data), model, "m", sg.Threat(norm, 0.1), len(data))
    assert (found.count, found.censored) == (60, 0)
    want = (score / dual).sort().values
    for level, row in found.quantiles.items():
        exact = float(want[max(0, math.ceil(float(level) * 60 - 1e-9) - 1)])
        assert row["value"] >= exact - 1e-6  # an upper bound
        if norm != "l1" or level in ("0.5", "0.75", "0.95"):
            assert row["value"] == pytest.approx(exact, rel=room, abs=1e-4)


def test_the_search_is_made_for_the_norm() -> None:
    assert [nearest(norm)[0] for norm in ("linf", "l2", "l1", "l0")] == [FMN(), DDN(), FMN(), FMN()]
    assert (FMN().steps, DDN().steps) == (100, 100)
    assert [nearest(norm)[1:] for norm in ("linf", "l2", "l1")] == [(DeepFool(),), (DeepFool(),), ()]


class Unbreakable(nn.Module):
    """Knows the label by the sign of a feature that no allowed change reaches; else constant."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zero = 0 * x.flatten(1).sum(1)
        return torch.stack([zero + 2, zero], 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_nothing_breaks_is_beyond_the_whole_range_and_never_zero(norm: Any) -> None:
    data = features([[0.5, 0.5]] * 20, [0] * 12 + [1] * 8)
    found = distances(Bench(data), Unbreakable(), "m", sg.Threat(norm, 0.1), 20)
    assert (found.count, found.censored) == (12, 12)  # the clean mistakes are no distances of 0
    assert found.limit == pytest.approx(1.0 if norm == "linf" else math.sqrt(2))
    assert {row["value"] for row in found.quantiles.values()} == {None}
    assert {row["high"] for row in found.quantiles.values()} == {None}
    assert found.quantiles["0.5"]["low"] is None  # of twelve samples nobody knows the lowest twentieth


def test_a_model_that_is_never_right_has_no_distances() -> None:
    found = distances(Bench(features([[0.5]] * 5, [1] * 5)), Unbreakable(), "m", sg.linf(0.1), 5)
    assert (found.count, found.censored) == (0, 0)
    assert found.quantiles["0.5"]["value"] is None


def test_some_censored_samples_leave_the_lower_quantiles() -> None:
    # The second class is far from the plane of those near it, and out of reach within the range of the inputs.
    data = features([[0.45]] * 60 + [[0.9]] * 40, [0] * 60 + [1] * 40)

    class Half(Halfspace):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = super().forward(x)
            return torch.where(x > 0.7, torch.tensor([0.0, 1.0]) + 0 * logits, torch.where(x < 0.46, logits, -logits))

    near = Half([1.0], 0.5)
    found = distances(Bench(data), near, "m", sg.linf(0.1), 100)
    assert found.count == 100
    assert 0 < found.quantiles["0.25"]["value"] <= 0.5


def test_nearer_points_of_other_attacks_count_and_no_others(honest: Classifier, digits: Dataset) -> None:
    data = digits.take(40)
    bench, threat = Bench(data), sg.linf(0.15)
    alone = distances(bench, honest, "m", threat, 40)
    known = bench.run(honest, "m", PGD(steps=10), threat) + bench.run(honest, "m", FGSM(), threat)
    beside = distances(bench, honest, "m", threat, 40, known)
    for level in alone.quantiles:
        assert beside.quantiles[level]["value"] <= alone.quantiles[level]["value"]
    planted = known.frame.copy()
    planted.loc[planted["sample"] == data.ids[0], "distance"] = 1e-5
    least = distances(bench, honest, "m", threat, 40, type(known)(planted))
    assert least.quantiles["0.05"]["low"] <= beside.quantiles["0.05"]["low"]
    assert least != beside


def test_cells_keep_the_search(honest: Classifier, digits: Dataset) -> None:
    bench = Bench(digits.take(20))
    first = distances(bench, honest, "m", sg.linf(0.1), 20)
    computed = bench.cells.computed
    assert distances(bench, honest, "m", sg.linf(0.3), 20) == first  # the radius plays no part
    assert bench.cells.computed == computed
    plain = first.plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
