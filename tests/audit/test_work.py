"""Work is done once, weights are read rarely, and what the caller gave stays the caller's."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steadygrad as sg
from audit import victims
from gates import counted
from steadygrad.attacks import FGSM, PGD
from steadygrad.attributions import Saliency
from steadygrad.audit.audited_models import fitting
from steadygrad.data import Dataset
from steadygrad.measuring import code_keys

SETTINGS: dict[str, Any] = {
    "attacks": [PGD(steps=3), FGSM()], "attributions": (Saliency(),), "checked": 8, "gallery": 2, "grid": (0.5, 1.0)
}  # fmt: skip


@pytest.fixture(scope="module")
def some(digits: Dataset) -> Dataset:
    return digits.take(16)


def _rows(model: nn.Module, data: Dataset, out: Path | None) -> int:
    """How many samples pass through the model in an audit."""
    counting = victims.Counting(model)
    sg.audit(counting, data, sg.linf(0.1), out=out, **SETTINGS)
    return victims.Counting.rows


@pytest.mark.slow
def test_a_folder_costs_nothing_and_a_second_run_measures_nothing(
    honest: nn.Module, some: Dataset, tmp_path: Path
) -> None:
    without, within = _rows(honest, some, None), _rows(honest, some, tmp_path / "run")
    assert without == within
    # What is left is the trial on two samples, with a look at whether the model is random.
    trial = _rows(honest, some, tmp_path / "run")
    victims.Counting.rows = 0
    fitting(victims.Counting(honest), some, sg.linf(0.1), 16, None)
    assert trial == victims.Counting.rows
    assert trial <= 10 < without / 100


def test_an_attack_of_the_suite_is_not_made_again_for_the_checks(
    honest: nn.Module, some: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, int]] = []
    attacked = FGSM.__call__

    def counted(self: FGSM, model: nn.Module, x: Tensor, *rest: Any, **more: Any) -> Any:
        calls.append((self, len(x)))
        return attacked(self, model, x, *rest, **more)

    monkeypatch.setattr(FGSM, "__call__", counted)
    sg.audit(honest, some, sg.linf(0.1), **SETTINGS)
    assert calls == [(FGSM(), 16)]


@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize("kept", [False, True])
def test_weights_are_read_at_most_three_times(
    honest: nn.Module, other: nn.Module, some: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: int,
    kept: bool,
) -> None:  # fmt: skip
    read: list[nn.Module] = []
    original = code_keys.weights_key

    def counted(model: nn.Module) -> str:
        read.append(model)
        return original(model)

    for module in (code_keys, importlib.import_module("steadygrad.audit.prepared")):
        monkeypatch.setattr(module, "weights_key", counted)
    named = {"a": honest, "b": other} if models == 2 else {"a": honest}
    sg.audit(named, some, sg.linf(0.1), out=tmp_path / "run" if kept else None, **SETTINGS)
    for model in named.values():
        assert 1 <= sum(seen is model for seen in read) <= 3


class Spy(nn.Module):
    """Notes where it is asked to move."""

    def __init__(self, stops: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5))
        self.stops = stops

    moves: list[Any] = []  # noqa: RUF012 (settings of an instance would name its tables)
    seen = 0

    def _apply(self, *given: Any, **more: Any) -> Any:
        Spy.moves.append(given)
        return super()._apply(*given, **more)

    def forward(self, x: Tensor) -> Tensor:
        Spy.seen += len(x)
        if self.stops and Spy.seen > 40:
            raise KeyboardInterrupt
        return self.net(x)


CALLS: dict[str, Callable[[nn.Module, Dataset], Any]] = {
    "evaluate": lambda m, data: sg.evaluate(m, data, FGSM(), sg.linf(0.1)),
    "audit": lambda m, data: sg.audit(m, data, sg.linf(0.1), **SETTINGS),
    "audit on a device": lambda m, data: sg.audit(m, data, sg.linf(0.1), device="cpu", **SETTINGS),
    "validity": lambda m, data: sg.validity(m, data, FGSM(), sg.linf(0.1), count=8),
}


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_the_model_is_not_moved_and_is_left_as_it_was(some: Dataset, call: str, stops: bool) -> None:
    model = Spy(stops).train()
    model.net[1].bias.requires_grad_(False)
    model.net[1].weight.grad = torch.ones(10, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    places = {name: value.data_ptr() for name, value in model.named_parameters()}
    state, (Spy.moves, Spy.seen) = torch.get_rng_state(), ([], 0)
    if stops:
        with pytest.raises(KeyboardInterrupt):
            CALLS[call](model, some)
    else:
        CALLS[call](model, some)
    assert Spy.moves == []
    assert model.training
    assert all(module.training for module in model.modules())
    assert {name: value.data_ptr() for name, value in model.named_parameters()} == places
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [True, False]
    assert torch.equal(model.net[1].weight.grad, torch.ones(10, 64))
    assert model.net[1].bias.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_the_arguments_are_left_as_they_were(honest: nn.Module, some: Dataset, tmp_path: Path) -> None:
    models, settings = {"a": honest}, {**SETTINGS, "attacks": list(SETTINGS["attacks"])}
    said = json.dumps(settings, default=str)
    sg.audit(models, some, sg.linf(0.1), out=tmp_path / "run", **settings)
    assert json.dumps(settings, default=str) == said
    assert models == {"a": honest}


@pytest.mark.slow
def test_an_audit_costs_a_third_fewer_passes_than_one_whose_parts_know_nothing_of_each_other(
    honest: nn.Module, digits: Dataset
) -> None:
    # With all checks on all samples, a curve that knew no failure, points of its own for each attribution and restarts
    # for the pictures, the same records cost this many passes a sample.
    forwards, backwards = 1621.64, 1284.54
    with counted(honest) as passes:
        sg.audit(honest, digits, sg.linf(0.08), samples=300)
    assert 0 < passes["samples"] / 300 <= forwards * 2 / 3
    assert 0 < passes["samples_back"] / 300 <= backwards * 2 / 3
