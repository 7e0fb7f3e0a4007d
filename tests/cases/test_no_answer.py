"""Samples at which a model raises, or gives no finite logits: named, counted against it, and no end of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nets
import steadygrad as sg
from attacks.cheap import cheap
from cases.all_calls import CLASSES, EPS
from steadygrad.attacks import ATTACKS, PGD
from steadygrad.classifier import predict
from steadygrad.errors import Failure
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.runner import Runner
from steadygrad.threat import Threat

LIMIT = 0.56


class Picky(nn.Module):
    """Gives no answer to an input whose mean lies above a limit."""

    def __init__(self, net: nn.Module, limit: float = LIMIT, raises: bool = False) -> None:
        super().__init__()
        self.net, self.limit, self.raises = net, limit, raises

    def forward(self, x: Tensor) -> Tensor:
        bad = x.flatten(1).mean(1) > self.limit
        if self.raises and bool(bad.any()):
            raise ArithmeticError("too bright")
        return torch.where(bad[:, None], torch.nan, self.net(x))


class Bright(nn.Module):
    """Right about class 0 wherever `Picky` lets it answer, and less sure the brighter the input is."""

    def forward(self, x: Tensor) -> Tensor:
        bright = 8 * x.flatten(1).mean(1)
        return torch.stack([10 - bright, bright, 0 * bright], 1)


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize(("name", "norm"), [(row.name, norm) for row in ATTACKS for norm in row.norms])
def test_a_point_without_an_answer_is_no_end_of_an_attack(name: str, norm: str, raises: bool) -> None:
    x, threat = nets.inputs(5), Threat(norm, EPS[norm])
    x = x - x.mean((1, 2, 3), keepdim=True) + LIMIT - torch.tensor([-0.1, 0.005, 0.01, 0.02, 0.02]).view(5, 1, 1, 1)
    x, y = x.clamp(0, 1), torch.zeros(5, dtype=torch.int64)
    model = Picky(Bright(), raises=raises)
    refusal, why = (sg.UsageError, "too bright") if raises else (Failure, "for 1 of 5 inputs, the first at place 0")
    with pytest.raises(refusal, match=why):
        cheap(name)(model, x, y, threat)
    x, y = x[1:], y[1:]
    found = cheap(name)(model, x, y, threat)
    assert threat.allows(x, found.inputs).all()
    assert not torch.isnan(found.distance).any()
    if ATTACKS[name].method.minimum_norm:  # with few steps it may end beyond the radius
        found = cheap(name)(model, x, y, threat.at(None))
    if name not in ("random_noise", "square"):
        assert found.success.float().mean() > 0.7
    assert ((found.inputs.flatten(1).mean(1) > LIMIT) == found.success).all()


# Audits of models that fail at some samples


def _data(bad: int, count: int = 40) -> sg.data.Dataset:
    """Samples of which so many are too bright, the first one among them, and labels of which most are right."""
    x = nets.inputs(count)
    x = x - x.mean((1, 2, 3), keepdim=True) + 0.45
    x[:bad] += 0.2
    x = x.clamp(0, 1)
    y = nets.build("mlp")(x).argmax(1)
    y[::5] = (y[::5] + 1) % CLASSES
    return sg.data.from_arrays(x, y, CLASSES)


FEW = {"gallery": 4, "checked": 12, "mapped": 4, "explanation_samples": 4, "neuron_samples": 6, "explanation_steps": 2}


def test_an_audit_names_what_fails_and_counts_it_against_the_model(tmp_path: Path) -> None:
    data = _data(3)
    models = {"picky": Picky(nets.build("mlp"), raises=True), "plain": nets.build("mlp")}
    how: dict[str, Any] = {"attacks": [PGD(steps=3)], "explanations": True, "neurons": True, "neuron_layers": ("*2",)}
    found = sg.audit(models, data, sg.linf(0.03), out=tmp_path, **how, **FEW)
    picky, plain = found.summary["models"]
    (said,) = (row["text"] for row in picky["findings"] if row["about"] == "answers")
    why = "ArithmeticError: too bright"
    assert said.startswith("the model gives no answer to 3 of 40 samples: ")
    assert said.count(why) == 3
    assert all(f"{name} ({why})" in said for name in data.ids[:3])
    assert not [row for row in plain["findings"] if row["about"] == "answers"]
    records = found.records.where(model="picky").frame
    failed = records[records["sample"].isin(data.ids[:3])]
    assert (failed["clean_prediction"] == -1).all()
    assert failed["success"].all()
    assert (failed["distance"] == 0).all()
    # The others are what they are without the three.
    alone = sg.audit(models["plain"], data.select(slice(3, None)), sg.linf(0.03), attacks=[PGD(steps=3)], gallery=0)
    (other,) = alone.summary["models"]
    for name in ("clean", "robust"):
        assert round(picky[name]["value"] * 40) == round(other[name]["value"] * 37)
    assert picky["curve"]["points"][0]["accuracy"]["value"] == picky["clean"]["value"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    sg.report.write(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["models"] == summary["models"]
    assert data.ids[0] in (tmp_path / "report" / "index.html").read_text()


def test_points_without_an_answer_are_told_and_no_end_of_an_audit(tmp_path: Path) -> None:
    net, x = nets.build("mlp"), nets.inputs(30)
    x = (0.45 + 0.5 * (x - x.mean((1, 2, 3), keepdim=True))).clamp(0, 1)
    y = net(x).argmax(1)
    y[::5] = (y[::5] + 1) % CLASSES
    how: dict[str, Any] = {"attacks": [PGD(steps=3)], "explanations": True, "neurons": True, "neuron_layers": ("*2",)}
    model = Picky(net, limit=0.451)
    found = sg.audit(model, sg.data.from_arrays(x, y, CLASSES), sg.linf(0.03), out=tmp_path, **how, **FEW)
    (entry,) = found.summary["models"]
    lost = int((found.records["prediction"] == -1).sum())
    assert lost > 3
    assert entry["clean"]["value"] == 0.8
    assert [
        f"attacks led {lost} of 30 samples" in row["text"] for row in entry["findings"] if row["about"] == "answers"
    ]
    sg.report.write(tmp_path)


@pytest.mark.parametrize("raises", [False, True])
def test_too_many_failures_end_an_audit_by_name(raises: bool) -> None:
    model, data = Picky(nets.build("mlp"), raises=raises), _data(5)
    with pytest.raises(
        Failure, match=rf"no answer to 5 of 40 samples: .*{data.ids[0]} .* and 2 more; with more than 10%"
    ):
        sg.audit(model, data, sg.linf(0.03), attacks=[PGD(steps=2)], gallery=0)


@pytest.mark.parametrize("raises", [False, True])
def test_records_of_a_model_that_fails_at_some_samples(raises: bool, caplog: pytest.LogCaptureFixture) -> None:
    model, data = Picky(nets.build("mlp"), raises=raises), _data(2)
    table = sg.evaluate(model, data, [PGD(steps=2), cheap("square")], sg.linf(0.03), batch_size=16)
    assert "no answer to 2 of 40 samples" in caplog.text
    failed = table["clean_prediction"] == -1
    assert set(table["sample"][failed]) == {*data.ids[:2]}
    assert table["success"][failed].all()
    plain = sg.evaluate(model.net, data, [PGD(steps=2), cheap("square")], sg.linf(0.03), batch_size=16)
    assert (table["success"][~failed] == plain["success"][~failed]).all()
    assert len(sg.validity(model, data, PGD(steps=2), sg.linf(0.03)).checks) == 13


def test_a_service_that_is_gone_is_no_failure_of_a_sample() -> None:
    calls = [0]

    def service(x: Any) -> Any:
        calls[0] += 1
        if calls[0] > 8:
            raise ConnectionError("connection refused")
        return x.reshape(len(x), -1)[:, :CLASSES]

    data = _data(0)
    with pytest.raises((OSError, sg.UsageError), match="connection refused"):
        sg.evaluate(sg.BlackBox(service), data, cheap("square"), sg.linf(0.03))


def test_a_model_that_breaks_for_good_is_no_failure_of_a_sample() -> None:
    model = Picky(nets.build("mlp"), raises=True)
    x, y = _data(0).tensors()
    predict(model, x)
    model.limit = -1.0
    with pytest.raises(sg.UsageError, match="too bright"):
        PGD(steps=2)(model, x, y, sg.linf(0.1))


def test_a_network_that_answers_nothing_ends_the_run_of_who_does_not_count_such_samples() -> None:
    runner = Runner({"m": Picky(nets.build("mlp"), limit=-1.0)}, _data(0))
    assert (runner.run(Predicted(), "m")["prediction"] == -1).all()
    with pytest.raises(Failure, match="NaN or infinite logits for 40 of 40 inputs"):
        runner.run(Attacked(PGD(steps=2), sg.linf(0.1)), "m")
