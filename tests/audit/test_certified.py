"""The lower border of robust accuracy: certified samples beneath those that the attacks left, and refusals in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import steadygrad as sg
from steadygrad import report
from steadygrad.attacks import JSMA, PGD
from steadygrad.audit.audit import read
from steadygrad.audit.findings import Audit
from steadygrad.bounds import CertifiedMargin
from steadygrad.data import Dataset
from steadygrad.measuring.measures.certified_margins import CertifiedCurve
from steadygrad.measuring.runner import Runner

LITTLE: dict[str, Any] = {
    "attacks": [PGD(steps=5)], "checks": False, "maps": False, "mapped": 0, "gallery": 0, "checked": 12,
}  # fmt: skip
EPS = 0.01


class Summed(nn.Module):
    """A model with an operation that has no bounds."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x).cumsum(1)


@pytest.fixture(scope="module")
def some(digits: Dataset) -> Dataset:
    return digits.draw(30)


@pytest.fixture(scope="module")
def found(honest: nn.Module, some: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    models = {"plain": honest, "summed": Summed(honest), "noisy": sg.RandomizedSmoothing(0.1, n0=10, n=50)(honest)}
    out = tmp_path_factory.mktemp("certified") / "run"
    return sg.audit(models, some, sg.linf(EPS), out=out, certify=True, **LITTLE)


def _borders(found: Audit) -> dict[str, Any]:
    borders: dict[str, Any] = found.summary["models"][0]["certified"]["borders"]
    return borders


def test_the_borders_are_of_the_samples_that_the_attacks_saw(found: Audit, honest: nn.Module, some: Dataset) -> None:
    borders, entry = _borders(found), found.summary["models"][0]
    sure = CertifiedMargin()(honest, *some.tensors(), sg.linf(EPS)).certified
    assert 0 < borders["certified"] == int(sure.sum()) < len(some)
    assert borders["accuracy"]["value"] + borders["gap"]["value"] == pytest.approx(entry["robust"]["value"])
    assert borders["attacked"] == round(len(some) * (1 - entry["robust"]["value"]))
    assert borders["crossed"] == borders["distances"]["crossed"] == 0
    assert entry["findings"] == []


def test_the_certified_curve_runs_beneath_that_of_the_attacks(found: Audit) -> None:
    points, curve = _borders(found)["curve"], found.summary["models"][0]["curve"]["points"]
    assert [point["eps"] for point in points] == [point["eps"] for point in curve]
    shares, above = ([point["accuracy"]["value"] for point in line] for line in (points, curve))
    assert shares[0] == found.summary["models"][0]["clean"]["value"]
    assert shares == sorted(shares, reverse=True)
    assert all(low <= high for low, high in zip(shares, above, strict=True))
    at = dict(zip([point["eps"] for point in points], shares, strict=True))[EPS]
    assert at == _borders(found)["accuracy"]["value"]


def test_certified_radii_lie_beneath_the_smallest_changes_found(found: Audit) -> None:
    entry = found.summary["models"][0]
    low, high = (
        part["quantiles"]["0.5"]["value"] for part in (entry["certified"]["borders"]["distances"], entry["distances"])
    )
    assert 0 < low < high
    table = found.distances.where(model="plain")
    assert (table["certified"] <= table["distance"]).all()
    assert np.isnan(found.distances.where(model="summed")["certified"]).all()


def test_a_model_without_bounds_has_a_sentence(found: Audit) -> None:
    _, summed, noisy = (entry["certified"] for entry in found.summary["models"])
    assert "cumsum" in summed["refused"]
    assert "certificate of its own" in noisy["refused"]
    assert summed["borders"] is noisy["borders"] is None


def test_the_page_shows_both_borders(found: Audit, some: Dataset) -> None:
    assert found.folder is not None
    page = report.write(found.folder).read_text(encoding="utf-8")
    result = page.split('id="borders"')[1].split("<section")[0]
    borders = _borders(found)
    counts = ", ".join(f"{borders[state]} {state}" for state in ("attacked", "certified", "open"))
    assert f"plain: {counts} of {len(some)} samples." in result
    assert "summed: nothing is certified, because there is no certified bound for the operation" in result
    (found.folder / "summary.json").unlink()
    assert read(found.folder).summary["models"] == found.summary["models"]


def test_crossed_borders_are_a_warning(honest: nn.Module, some: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    real = CertifiedMargin._batch

    def optimistic(self: Any, network: Any, x: Any, y: Any, threat: Any, unit: float) -> Any:
        bound = real(self, network, x, y, threat, unit)
        return type(bound)(bound.margins.abs(), bound.forwards, bound.backwards)

    monkeypatch.setattr(CertifiedMargin, "_batch", optimistic)
    how = {**LITTLE, "curve": False, "distances": False}
    (entry,) = sg.audit(honest, some, sg.linf(0.1), certify=True, **how).summary["models"]
    assert entry["certified"]["borders"]["crossed"] == entry["certified"]["borders"]["attacked"] > 0
    assert [row["about"] for row in entry["findings"] if row["warning"]] == ["certified"]


def test_another_norm_is_refused_at_once(honest: nn.Module, some: Dataset) -> None:
    with pytest.raises(sg.UsageError, match=r"certify \(--certify\) works within linf, l2 or l1, not within l0"):
        sg.audit(honest, some, sg.l0(2), certify=True, attacks=[JSMA()])


def test_the_cost_of_bounds_is_told_in_passes(honest: nn.Module, some: Dataset) -> None:
    how = {**LITTLE, "curve": False}
    tables = {t.table: t for t in sg.audit_cost(honest, some, sg.linf(EPS), certify=True, **how).tables}
    once = CertifiedMargin()(honest, *some.take(1).tensors(), sg.linf(EPS))
    at_eps, radius = tables["certified margins"], tables["certified radius"]
    assert (at_eps.forwards, at_eps.backwards) == (30 * int(once.forwards[0]), 30 * int(once.backwards[0]))
    assert radius.forwards == 11 * radius.samples * int(once.forwards[0])


def test_radii_of_a_grid_are_those_of_trying_each(honest: nn.Module, some: Dataset) -> None:
    grid = (0.005, 0.01, 0.02, 0.04)
    given = {"certified": np.zeros(30), "fell": np.full(30, np.inf)}
    table = Runner({"m": honest}, some).run(CertifiedCurve(sg.linf(1.0), grid), "m", given=given)
    each = torch.stack([CertifiedMargin()(honest, *some.tensors(), sg.linf(eps)).certified for eps in grid])
    expected = np.array([0.0, *grid])[each.sum(0).numpy()]
    assert (table["radius"] == expected).all()
    assert len(np.unique(expected)) > 2
