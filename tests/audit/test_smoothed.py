"""A smoothed model is audited as its soft vote, and certified as itself: never the model beneath it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import steadygrad as sg
from steadygrad import report
from steadygrad.attacks import FGSM, PGD
from steadygrad.audit.audit import read
from steadygrad.audit.findings import Audit
from steadygrad.audit.smoothed import l2_of
from steadygrad.data import Dataset
from steadygrad.measuring.measures.certified_smoothing import CertifiedSmoothing
from steadygrad.measuring.measures.neuron_changes import NeuronChanges
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.table import Table

SMOOTHING = sg.RandomizedSmoothing(0.15, n0=50, n=500, draws=4)
LITTLE: dict[str, Any] = {
    "attacks": [FGSM()], "checks": False, "curve": False, "distances": False, "maps": False, "mapped": 0, "gallery": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def some(digits: Dataset) -> Dataset:
    return digits.draw(30)


@pytest.fixture(scope="module")
def both(honest: nn.Module, some: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    models = {"plain": honest, "under noise": SMOOTHING(honest)}
    return sg.audit(models, some, sg.l2(0.2), out=tmp_path_factory.mktemp("smoothed") / "run", **LITTLE)


def _certified(model: nn.Module, data: Dataset, smoothing: sg.RandomizedSmoothing = SMOOTHING) -> Table:
    return Runner({"m": model}, data).run(CertifiedSmoothing(smoothing), "m")


def _entry(model: nn.Module, data: Dataset, threat: sg.Threat, **settings: Any) -> dict[str, Any]:
    (entry,) = sg.audit(model, data, threat, **{**LITTLE, **settings}).summary["models"]
    found: dict[str, Any] = entry["smoothed"]
    return found


def test_the_certificate_is_that_of_the_smoothed_classifier(both: Audit, honest: nn.Module, some: Dataset) -> None:
    plain, smoothed = both.summary["models"]
    assert plain["smoothed"] is None
    found, table = smoothed["smoothed"], _certified(honest, some)
    assert {name: found[name] for name in dataclasses.asdict(SMOOTHING)} == dataclasses.asdict(SMOOTHING)
    right = table["prediction"] == table["label"]
    assert found["reach"] == 0.2
    assert found["within"]["value"] == (right & (table["radius"] > 0.2)).mean()
    assert 0.1 < found["within"]["value"] < 0.95
    assert found["abstained"]["value"] == (table["prediction"] == -1).mean()
    shares = [point["accuracy"]["value"] for point in found["certified"]]
    assert shares == [(right & (table["radius"] > point["radius"])).mean() for point in found["certified"]]
    assert found["crossed"] == 0
    assert found["within"]["value"] <= smoothed["robust"]["value"]


def test_the_page_says_what_is_certified_and_what_is_not(both: Audit) -> None:
    assert both.folder is not None
    page = report.write(both.folder).read_text(encoding="utf-8")
    part = page.split('id="smoothed"')[1].split("<section")[0]
    assert "the model without noise is not" in part
    assert "under noise: σ = 0.15" in part
    assert "plain" not in part
    assert "certified" not in page.split('id="result"')[1].split("<section")[0].casefold()
    (both.folder / "summary.json").unlink()
    assert read(both.folder).summary["models"] == both.summary["models"]


def test_other_noise_is_another_run(both: Audit, honest: nn.Module, some: Dataset) -> None:
    other = dataclasses.replace(SMOOTHING, sigma=0.2)
    with pytest.raises(sg.UsageError, match=r"from another configuration \(differs in: models\)"):
        sg.audit({"plain": honest, "under noise": other(honest)}, some, sg.l2(0.2), out=both.folder, **LITTLE)


class Pixels(nn.Module):
    """The same model of pixels within [0, 255]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x / 255)


def test_noise_is_in_the_units_of_the_model(honest: nn.Module, some: Dataset) -> None:
    model = sg.Classifier(Pixels(honest), bounds=(0, 255), classes=some.classes)
    found = _entry(dataclasses.replace(SMOOTHING, sigma=0.15 * 255)(model), some, sg.l2(0.2))
    assert found["sigma"] == pytest.approx(0.15)
    alike = _entry(SMOOTHING(honest), some, sg.l2(0.2))
    for name in ("within", "abstained"):
        assert found[name]["value"] == pytest.approx(alike[name]["value"], abs=0.04)


class Turned(nn.Module):
    """The same outputs in the opposite order."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x).flip(1)


def test_classes_are_matched_beneath_the_noise(honest: nn.Module, some: Dataset) -> None:
    named = dataclasses.replace(some, classes=tuple(f"digit {i}" for i in range(10)))
    model = sg.Classifier(Turned(honest), classes=named.classes[::-1])
    found = _entry(SMOOTHING(model), named, sg.l2(0.2))
    assert found == _entry(SMOOTHING(honest), some, sg.l2(0.2))


def test_a_soft_vote_that_is_turned_within_a_certified_radius_is_counted(honest: nn.Module, some: Dataset) -> None:
    single = sg.RandomizedSmoothing(0.25, n0=50, n=500, draws=1)
    found = _entry(single(honest), some, sg.l2(0.02), attacks=[PGD(steps=3)])
    table = _certified(honest, some, single)
    certified = (table["prediction"] == table["label"]) & (table["radius"] > 0.02)
    with torch.no_grad():
        wrong = (single(honest)(some.images).argmax(1) != some.labels).numpy()
    assert (certified & wrong).any()
    assert found["crossed"] >= (certified & wrong).sum()


def test_a_threat_in_another_norm_has_its_largest_l2_norm() -> None:
    shape, mask = (1, 4, 4), torch.zeros(4, 4)
    mask[0] = 1
    assert l2_of(sg.linf(0.1), shape) == pytest.approx(0.4)
    assert l2_of(sg.linf(0.1, mask=mask), shape) == pytest.approx(0.2)
    assert l2_of(sg.l1(0.1), shape) == l2_of(sg.l2(0.1), shape) == 0.1
    assert l2_of(sg.l0(9, bounds=(-1, 1)), shape) == pytest.approx(6)
    assert l2_of(sg.l0(9, bounds=(-1, 1), mask=mask), shape) == pytest.approx(4)


def test_passes_are_those_of_the_network(honest: nn.Module, some: Dataset) -> None:
    cost = sg.audit_cost(SMOOTHING(honest), some, sg.l2(0.2), **LITTLE)
    forwards = {table.table: table.forwards for table in cost.tables}
    assert forwards["randomized smoothing"] == len(some) * (SMOOTHING.n0 + SMOOTHING.n)
    plain = {table.table: table.forwards for table in sg.audit_cost(honest, some, sg.l2(0.2), **LITTLE).tables}
    assert forwards["Predicted"] == SMOOTHING.draws * plain["Predicted"] > 0


def test_neurons_of_several_draws_are_refused(honest: nn.Module, some: Dataset) -> None:
    measure = NeuronChanges(FGSM(), sg.l2(0.2))
    assert "several draws of noise" in str(Runner({"m": SMOOTHING(honest)}, some).run(measure, "m").refused)
