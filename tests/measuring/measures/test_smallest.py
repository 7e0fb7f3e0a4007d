"""Smallest changes against closed forms; what nothing breaks is infinitely far, and clean mistakes are at zero."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import steadygrad as sg
from audit.victims import Halfspace, features
from steadygrad.attacks import FMN
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.measuring.measures.attacked import NEAREST, Attacked
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.table import Array

W, BIAS = [1.0, -2.0, 0.5], -0.2


def smallest(model: nn.Module, data: Dataset, threat: sg.Threat) -> Array:
    """The smallest change that the search finds for each sample."""
    return np.asarray(Runner({"m": model}, data).run(Attacked(NEAREST, threat.at(None)), "m")["distance"])


@pytest.mark.parametrize(
    ("norm", "dual", "room"), [("linf", 3.5, 0.03), ("l2", math.sqrt(5.25), 0.03), ("l1", 2.0, 0.5)]
)
def test_sizes_for_a_half_space_are_the_distances_to_it(norm: Any, dual: float, room: float) -> None:
    x = 0.35 + 0.3 * torch.rand(60, 3, generator=torch.Generator().manual_seed(3))
    score = x.double() @ torch.tensor(W, dtype=torch.float64) - BIAS
    data = features(x.tolist(), (score > 0).long().tolist())
    found = smallest(Halfspace(W, BIAS), data, sg.Threat(norm, 0.1))
    exact = (score.abs() / dual).numpy()
    assert (found >= exact - 1e-6).all()  # an upper bound
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        if norm != "l1" or level >= 0.5:
            want = float(np.quantile(exact, level, method="inverted_cdf"))
            assert float(np.quantile(found, level, method="inverted_cdf")) == pytest.approx(want, rel=room, abs=1e-4)


class Unbreakable(nn.Module):
    """Always says the first class."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zero = 0 * x.flatten(1).sum(1)
        return torch.stack([zero + 2, zero], 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_nothing_breaks_is_infinitely_far_and_never_at_zero(norm: Any) -> None:
    data = features([[0.5, 0.5]] * 20, [0] * 12 + [1] * 8)
    assert smallest(Unbreakable(), data, sg.Threat(norm, 0.1)).tolist() == [math.inf] * 12 + [0.0] * 8


def test_the_radius_plays_no_part_and_the_search_is_made_once(honest: Classifier, digits: Dataset) -> None:
    runner = Runner({"m": honest}, digits.take(20))
    first = runner.run(Attacked(FMN(), sg.linf(0.1).at(None)), "m")
    assert runner.run(Attacked(FMN(), sg.linf(0.3).at(None)), "m").frame.equals(first.frame)
    assert runner.store.computed == 1
    assert first["success"].all()
    assert (first["distance"][first["clean_prediction"] == first["label"]] > 0).all()
    assert np.isnan(first["eps"]).all()
