"""The type in which an audit searches, and compiled models: taken where a trial finds the same, and told."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nets
import steadygrad as sg
from steadygrad.attacks.expectation import Expectation
from steadygrad.audit import quick_ways
from steadygrad.audit.audit_plan import AuditPlan
from steadygrad.quick import Way

HOW: dict[str, Any] = {
    "attacks": [sg.attacks.FGSM()], "attributions": ["saliency"], "gallery": 0, "checks": False, "distances": False,
    "curve": False, "maps": False,
}  # fmt: skip


def _net(kind: str) -> nn.Module:
    """One that gives each class to some of the inputs."""
    net = nets.build(kind)
    with torch.no_grad():
        net[-1].bias -= net(nets.inputs(60)).mean(0)
    return net


class Narrowed(nn.Module):
    """A network that is another one in a narrow type, from the forward of that number on."""

    left: int

    def __init__(self, first: int) -> None:
        super().__init__()
        self.inner = _net("conv")
        Narrowed.left = first  # not of the instance, whose values are part of its key

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        if torch.is_autocast_enabled("cpu"):
            Narrowed.left -= 1
        return -logits if torch.is_autocast_enabled("cpu") and Narrowed.left < 0 else logits


def _data(model: nn.Module) -> sg.data.Dataset:
    """Samples of which the model is sure."""
    x = nets.inputs(60)
    first, second = model(x.to(next(model.parameters()).dtype)).topk(2, dim=1).values.unbind(1)
    x = x[(first - second).argsort(descending=True)[:12]]
    kind = next(model.parameters()).dtype
    return sg.data.from_arrays(x, model(x.to(kind)).argmax(1), classes=["a", "b", "c"])


def _shards(folder: Path) -> set[str]:
    return {path.name.rpartition("-")[0] for path in (folder / "tables").rglob("*.parquet")}


def _finding(found: Any, about: str) -> str:
    texts = [f["text"] for f in found.summary["models"][0]["findings"] if f["about"] == about]
    assert len(texts) == 1
    return str(texts[0])


def test_a_type_in_which_the_trial_finds_the_same_is_taken_and_has_its_own_shards(tmp_path: Path) -> None:
    model = sg.Classifier(_net("conv"))
    data, threat = _data(model), sg.linf(0.02)
    usual = sg.audit(model, data, threat, out=tmp_path / "usual", **HOW)
    found = sg.audit(model, data, threat, out=tmp_path / "narrow", precision="bfloat16", **HOW)
    assert found.summary["models"][0]["robust"] == usual.summary["models"][0]["robust"]
    assert "search it in bfloat16: the predictions of 12 samples" in _finding(found, "precision")
    assert found.summary["config"]["searched_in"] == {"Sequential": "bfloat16"}
    assert not _shards(tmp_path / "usual") & _shards(tmp_path / "narrow")
    page = sg.report.write(tmp_path / "narrow").read_text()
    assert "search it in bfloat16" in page


@pytest.mark.parametrize(
    ("model", "precision", "reason"),
    [
        (Narrowed(0), "bfloat16", "12 of 12 predictions are others"),
        (_net("conv"), "tf32", "TF32 is a type of CUDA devices, and not of cpu"),
        (_net("conv").double(), "bfloat16", "the weights are not of float32 (torch.float64)"),
    ],
)
def test_another_type_gives_way_to_float32_and_its_shards(
    tmp_path: Path, model: nn.Module, precision: str, reason: str
) -> None:
    data, threat = _data(model), sg.linf(0.02)
    sg.audit(model, data, threat, out=tmp_path / "usual", **HOW)
    found = sg.audit(model, data, threat, out=tmp_path / "narrow", precision=precision, **HOW)
    assert _finding(found, "precision") == f"{precision} was asked for, and float32 taken: {reason}"
    assert _shards(tmp_path / "usual") == _shards(tmp_path / "narrow")


def test_a_type_in_which_an_attack_finds_something_else_is_not_taken() -> None:
    # Right in the predictions of the trial, and turned around in the gradients of its attack.
    model = Narrowed(2)
    found = sg.audit(model, _data(model), sg.linf(0.2), precision="bfloat16", **HOW)
    assert "finds something else for" in _finding(found, "precision")


def test_a_type_is_not_taken_where_no_attack_can_be_tried() -> None:
    model = sg.Classifier(_net("conv"))
    data = _data(model)
    wrong = dataclasses.replace(data, labels=(data.labels + 1) % 3)
    reason = quick_ways.way_for(model, wrong, AuditPlan(precision="bfloat16"), gradients=True)[1][0].text
    assert reason.endswith("none of 12 samples is right, on which an attack could be tried")


@pytest.mark.parametrize(
    ("faster", "told"),
    [(0.0, "attacks search it compiled"), (1e9, "it was to be compiled, and is run as it is written: it takes ")],
)
def test_a_compiled_model_is_taken_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, faster: float, told: str
) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr(quick_ways, "_FASTER", faster)
    model = sg.Classifier(_net("mlp"))
    data, threat = _data(model), sg.linf(0.02)
    found = sg.audit(model, data, threat, out=tmp_path / "compiled", compile=True, **HOW)
    usual = sg.audit(model, data, threat, out=tmp_path / "usual", **HOW)
    assert _finding(found, "compiled").startswith(told)
    assert _shards(tmp_path / "usual") == _shards(tmp_path / "compiled")
    assert found.summary["models"][0]["robust"] == usual.summary["models"][0]["robust"]


@pytest.mark.parametrize(
    ("compiled", "told"),
    [
        (lambda model: lambda x: 1 / 0, "it cannot be (ZeroDivisionError: division by zero)"),
        (lambda model: lambda x: -model(x), "its predictions would be others"),
        (lambda model: lambda x: 1.1 * model(x), "its logits or gradients would be others"),
    ],
)
def test_a_compiled_model_that_fails_or_differs_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, compiled: Any, told: str
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **how: compiled(model))
    model, way = sg.Classifier(nets.build("mlp")), Way()
    assert told in quick_ways._compiled(model, nets.inputs(4), way, True)
    assert way._compiled is None


@pytest.mark.parametrize("last", [True, False])
def test_channels_come_last_where_that_is_faster(monkeypatch: pytest.MonkeyPatch, last: bool) -> None:
    taken: list[bool] = []

    def passes(model: nn.Module, x: Tensor, way: Way) -> tuple[Any, float]:
        taken.append(way.channels_last)
        return None, 1.0 if way.channels_last == last else 2.0

    model, x = sg.Classifier(nets.build("conv")), nets.inputs(4)
    monkeypatch.setattr(quick_ways, "_passes", passes)
    assert quick_ways._better_last(model, x, Way()) is last
    assert sorted(set(taken)) == [False, True]
    assert not quick_ways._better_last(model, x.flatten(1), Way())


def test_models_that_draw_or_come_compiled_are_run_as_they_are_written() -> None:
    model, x = sg.Classifier(nets.build("mlp")), nets.inputs(4)
    assert "it draws random numbers" in quick_ways._compiled(Expectation(model, 2), x, Way(), True)
    assert "it comes compiled" in quick_ways._compiled(torch.compile(model, backend="eager"), x, Way(), True)
    assert "it gives no gradients" in quick_ways._compiled(model, x, Way(), False)
