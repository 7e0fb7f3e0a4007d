"""The quantiles of smallest changes: upper bounds, censored where nothing was found, without clean mistakes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import steadygrad as sg
from audit.victims import Halfspace, features
from measuring.measures.test_smallest import BIAS, Unbreakable, W
from steadygrad.attacks import FGSM, PGD, RandomNoise
from steadygrad.audit.audit_plan import AuditPlan
from steadygrad.audit.model_summary import ModelSummary
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.measuring.measures.attacked import NEAREST, Attacked
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.table import Table
from steadygrad.registry import label_of


def summarized(model: nn.Module, data: Dataset, threat: sg.Threat, **settings: Any) -> ModelSummary:
    plan = AuditPlan.of(threat, {"attacks": [FGSM()], "checked": len(data), **settings})
    about = {"samples": len(data), "classes": list(data.classes), "shape": list(data.shape)}
    return ModelSummary(Runner({"m": model}, data), plan, "m", {"draws": 1, "gradients": True}, about, ())


@pytest.mark.parametrize(
    ("norm", "dual", "room"), [("linf", 3.5, 0.03), ("l2", math.sqrt(5.25), 0.03), ("l1", 2.0, 0.5)]
)
def test_quantiles_of_a_half_space_are_those_of_the_distance_to_it(norm: Any, dual: float, room: float) -> None:
    x = 0.35 + 0.3 * torch.rand(60, 3, generator=torch.Generator().manual_seed(3))
    score = x.double() @ torch.tensor(W, dtype=torch.float64) - BIAS
    data = features(x.tolist(), (score > 0).long().tolist())
    found = summarized(Halfspace(W, BIAS), data, sg.Threat(norm, 0.1))._distances()
    assert (found["count"], found["censored"]) == (60, 0)
    want = (score.abs() / dual).sort().values
    for level, row in found["quantiles"].items():
        exact = float(want[max(0, math.ceil(float(level) * 60 - 1e-9) - 1)])
        assert row["value"] >= exact - 1e-6  # an upper bound
        if norm != "l1" or level in ("0.5", "0.75", "0.95"):
            assert row["value"] == pytest.approx(exact, rel=room, abs=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_nothing_breaks_is_beyond_the_whole_range_and_never_zero(norm: Any) -> None:
    data = features([[0.5, 0.5]] * 20, [0] * 12 + [1] * 8)
    found = summarized(Unbreakable(), data, sg.Threat(norm, 0.1))._distances()
    assert (found["count"], found["censored"]) == (12, 12)  # the clean mistakes are no distances of 0
    assert found["limit"] == pytest.approx(1.0 if norm == "linf" else math.sqrt(2))
    assert {row["value"] for row in found["quantiles"].values()} == {None}
    assert {row["high"] for row in found["quantiles"].values()} == {None}
    assert found["quantiles"]["0.5"]["low"] is None  # of twelve samples nobody knows the lowest twentieth
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_model_that_is_never_right_has_no_distances() -> None:
    found = summarized(Unbreakable(), features([[0.5]] * 5, [1] * 5), sg.linf(0.1))._distances()
    assert (found["count"], found["censored"]) == (0, 0)
    assert found["quantiles"]["0.5"]["value"] is None


def test_some_censored_samples_leave_the_lower_quantiles() -> None:
    # The second class is far from the plane of those near it, and out of reach within the range of the inputs.
    data = features([[0.45]] * 60 + [[0.9]] * 40, [0] * 60 + [1] * 40)

    class Half(Halfspace):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = super().forward(x)
            return torch.where(x > 0.7, torch.tensor([0.0, 2.0]) + 0 * logits, torch.where(x < 0.46, logits, -logits))

    found = summarized(Half([1.0], 0.5), data, sg.linf(0.1))._distances()
    assert found["count"] == 100
    assert 0 < found["quantiles"]["0.25"]["value"] <= 0.5


def test_nearer_points_of_other_attacks_count_and_no_others(honest: Classifier, digits: Dataset) -> None:
    data, threat = digits.take(40), sg.linf(0.15)
    alone = summarized(honest, data, threat, attacks=[RandomNoise()])
    beside = summarized(honest, data, threat, attacks=[PGD(steps=10), FGSM()])
    sizes = [found.smallest()["distance"] for found in (alone, beside)]
    searched = _searched(alone)["distance"]
    found = np.min([np.where(t["success"], t["distance"], np.inf) for t in beside.attacked.values()], axis=0)
    assert (sizes[1] <= np.minimum(searched, found)).all()
    assert (sizes[1] == np.minimum(np.minimum(searched, found), beside.curve["radius"])).all()
    # A point that lies very near moves its sample and no other.
    planted = beside.attacked[label_of(FGSM())]
    sample = int(np.flatnonzero(planted["success"] & (planted["distance"] > 0))[0])
    near = planted["distance"].copy()
    near[sample] = 1e-5
    changed = replace(beside)
    changed.__dict__["attacked"] = {**beside.attacked, label_of(FGSM()): planted.assign(distance=near)}
    changed.__dict__["curve"] = beside.curve
    moved = changed.smallest()["distance"]
    assert moved[sample] == 1e-5
    assert (np.delete(moved, sample) == np.delete(sizes[1], sample)).all()
    lowest = [found._distances()["quantiles"]["0.05"] for found in (changed, beside)]
    assert lowest[0]["value"] <= lowest[1]["value"]
    assert lowest[0] != lowest[1]


def _searched(summary: ModelSummary) -> Table:
    return summary.tables.run(Attacked(NEAREST, summary.plan.threat.at(None)), "m")


def test_the_checked_samples_are_searched_and_no_others(honest: Classifier, digits: Dataset) -> None:
    found = summarized(honest, digits.take(30), sg.linf(0.1), checked=12)
    assert found.smallest()["sample"].tolist() == list(digits.ids[:12])
    right = found.leading["clean_prediction"] == found.leading["label"]
    assert found._distances()["count"] == right[:12].sum()
