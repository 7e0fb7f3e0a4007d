"""What an audit costs, told from a trial: passes as the audit makes them, and nothing kept."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steadygrad as sg
from gates import counted
from steadygrad.attacks import FGSM, PGD
from steadygrad.audit.cost import AuditCost
from steadygrad.data import Dataset

SETTINGS: dict[str, Any] = {
    "attacks": [PGD(steps=3), FGSM()], "attributions": (sg.attributions.Saliency(),), "checked": 10, "mapped": 6,
    "gallery": 2, "explanations": True, "explanation_samples": 3, "explanation_certified": 1, "explanation_steps": 1,
    "explanation_restarts": 1, "explanation_draws": 1,
}  # fmt: skip


LITTLE: dict[str, Any] = {"checks": False, "curve": False, "distances": False, "maps": False, "gallery": 0}
cost = importlib.import_module("steadygrad.audit.cost")


@pytest.fixture(scope="module")
def some(digits: Dataset) -> Dataset:
    return digits.draw(14)


@pytest.fixture(scope="module")
def told(honest: nn.Module, some: Dataset) -> AuditCost:
    return sg.audit_cost(honest, some, sg.linf(0.1), **SETTINGS)


def test_the_passes_are_those_of_the_audit_where_all_samples_are_tried(
    honest: nn.Module, some: Dataset, told: AuditCost
) -> None:
    assert told.tried == told.samples == 14
    with counted(honest) as passes:
        sg.audit(honest, some, sg.linf(0.1), **SETTINGS)
    # Besides the tables, an audit tries the model on two samples, some times.
    assert 0 <= passes["samples"] - sum(table.forwards for table in told.tables) <= 20
    assert 0 <= passes["samples_back"] - sum(table.backwards for table in told.tables) <= 4


def test_every_table_of_an_audit_is_in_the_cost(
    honest: nn.Module, some: Dataset, told: AuditCost, tmp_path: Path
) -> None:
    sg.audit(honest, some, sg.linf(0.1), out=tmp_path / "run", **SETTINGS)
    pieces = [path.parent for path in (tmp_path / "run" / "tables").rglob("*.parquet")]
    assert len(told.tables) == len(set(pieces))
    assert sum(table.shards for table in told.tables) == len(pieces)


def test_few_samples_stand_for_many(honest: nn.Module, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_TRIED", 3)
    settings: dict[str, Any] = {"attacks": [sg.attacks.RandomNoise(draws=4)], "checked": 40, "mapped": 30}
    told = sg.audit_cost(honest, digits, sg.linf(1e-4), samples=250, **settings)
    assert told.tried == 3
    by_name = {table.table: table for table in told.tables}
    # Nothing falls so near, so that all samples cost the same.
    noise = by_name["RandomNoise, 4 draws, linf, eps 0.0001"]
    assert (noise.samples, noise.shards, noise.backwards) == (250, 2, 0)
    assert noise.forwards == 250 * by_name["RandomNoise, 4 draws, linf, eps 0.0002"].forwards / 40
    assert by_name["stability of maps"].samples == 30
    assert by_name["RandomNoise, 4 draws, targeted"].samples == 10


class Silent(nn.Module):
    """Gives no answer to the first sample, and is wrong about the second one."""

    def __init__(self, model: nn.Module, data: Dataset) -> None:
        super().__init__()
        self.model, (self.none, self.wrong) = model, data.draw().tensors()[0][:2]

    def forward(self, x: Tensor) -> Tensor:
        near = [(x - one).flatten(1).abs().amax(1) < 0.3 for one in (self.none, self.wrong)]
        logits: Tensor = self.model(x)
        return torch.where(near[1][:, None], -logits, logits) / (~near[0])[:, None]


def test_samples_are_tried_that_an_attack_has_work_with(
    honest: nn.Module, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_QUICK", 0.0)
    data, model = digits.take(60), Silent(honest, digits.take(60))
    told = sg.audit_cost(model, data, sg.linf(1e-4), attacks=[PGD(steps=5)], **LITTLE)
    assert told.tried == 1
    (attack,) = (table for table in told.tables if table.table.startswith("PGD, 5 steps"))
    assert attack.backwards == 60 * 5
    assert cost.shares_of_slow({"m": model}, data, sg.linf(1e-4), attacks=[PGD(steps=5)], **LITTLE)


def test_a_trial_that_fails_or_takes_long_does_not_stop_an_audit(honest: nn.Module, some: Dataset) -> None:
    assert cost.shares_of_slow({"m": honest}, some, sg.linf(0.1), **SETTINGS) == {}
    assert cost.shares_of_slow({"m": nn.Linear(3, 3)}, some, sg.linf(0.1)) == {}


def test_the_shares_are_of_the_whole_and_plain(told: AuditCost) -> None:
    assert sum(told.share(table) for table in told.tables) == pytest.approx(1)
    assert all(table.seconds > 0 and table.forwards > 0 for table in told.tables)
    plain = told.plain()
    assert plain["seconds"] == told.seconds
    (at_once,), (memory,) = plain["at_once"].values(), plain["memory"].values()
    assert at_once == 14
    # A pass holds its inputs and what its layers give, and an attack some more of the inputs' size.
    assert 14 * 4 * (64 + 32 + 10) < memory < 14 * 4 * 64 * 60
    assert plain["tables"][0] == {**dataclasses.asdict(told.tables[0]), "share": told.share(told.tables[0])}


def test_a_trial_of_explanations_that_takes_long_is_stopped(
    honest: nn.Module, some: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_LONGEST", 0.02)
    found = sg.audit_cost(honest, some, sg.linf(0.1), **{**SETTINGS, "explanation_steps": 40})
    stopped = {table.table for table in found.tables if table.at_least}
    assert "attacks on the maps of Saliency" in stopped
    # What is never refused is tried to its end, however long that takes.
    assert not any(name.startswith(("PGD", "curve", "stability")) for name in stopped)
    assert all(table.seconds > 0 for table in found.tables)


def test_the_model_is_left_as_it_was(honest: nn.Module, told: AuditCost) -> None:
    assert not any(m._forward_hooks for m in honest.modules())


def test_what_an_audit_refuses_is_refused(honest: nn.Module, some: Dataset) -> None:
    with pytest.raises(sg.UsageError, match="one positive radius"):
        sg.audit_cost(honest, some, sg.linf())
    with pytest.raises(sg.UsageError, match="gallary"):
        sg.audit_cost(honest, some, sg.linf(0.1), gallary=2)
