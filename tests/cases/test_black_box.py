"""Models without gradients: functions on arrays, sessions, quantized modules; and models of one logit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gates
import nets
import steadygrad as sg
from attacks.cheap import cheap
from cases.all_calls import CLASSES
from steadygrad.attacks import FGSM, PGD, DeepFool, RandomNoise, Square, Standard
from steadygrad.attacks.suites import SUITES
from steadygrad.attributions import ATTRIBUTIONS, Saliency
from steadygrad.audit.audit import read
from steadygrad.measuring.code_keys import model_key
from steadygrad.threat import Threat

X = nets.inputs(8)
NET = nets.build("mlp", activation=nn.Softplus)
Y = (NET(X).argmax(1) + torch.tensor([1, 0, 0, 0, 0, 0, 0, 0])) % CLASSES


def _logits(x: np.ndarray) -> np.ndarray:
    assert x.dtype == np.float32
    values = x.reshape(len(x), -1)
    for layer in NET:
        if isinstance(layer, nn.Linear):
            values = values @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        elif isinstance(layer, nn.Softplus):
            values = np.logaddexp(0, values)
    return values


def _probabilities(x: np.ndarray) -> np.ndarray:
    odds = np.exp(_logits(x).astype(np.float64))
    return odds / odds.sum(1, keepdims=True)


class Session:
    """As ONNX Runtime has them."""

    class Input:
        name = "pixels"

    def get_inputs(self) -> list[Any]:
        return [self.Input()]

    def run(self, outputs: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert outputs is None
        return [_logits(feeds["pixels"]).astype(np.float32), np.zeros(3)]


class OneByOne(Session):
    def run(self, outputs: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        if len(feeds["pixels"]) != 1:
            raise RuntimeError("Got invalid dimensions for input: pixels, index: 0 Got: 8 Expected: 1")
        return super().run(outputs, feeds)


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return NET(x.detach())


class Within(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return NET(x)


class ThroughNumPy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(_logits(x.detach().numpy()))


def _quantized() -> nn.Module:
    from torch.ao.quantization import quantize_dynamic

    return quantize_dynamic(NET, {nn.Linear}, dtype=torch.qint8)


BOXES: dict[str, Any] = {
    "an array": lambda: sg.BlackBox(_logits),
    "a list": lambda: sg.BlackBox(lambda x: _logits(x).tolist()),
    "a tensor": lambda: sg.BlackBox(lambda x: NET(torch.from_numpy(x))),
    "probabilities": lambda: sg.BlackBox(_probabilities, probabilities=True),
    "a session": lambda: sg.BlackBox(Session()),
    "a session of one": lambda: sg.BlackBox(OneByOne()),
    "in a classifier": lambda: sg.Classifier(sg.BlackBox(_logits), classes=CLASSES, input_shape=(1, 4, 4)),
    "detached": Detached,
    "no gradients inside": Within,
    "through NumPy": ThroughNumPy,
}


@pytest.mark.parametrize("box", BOXES)
def test_what_needs_no_gradient_gives_the_numbers_of_the_network(box: str) -> None:
    model, data = BOXES[box](), sg.data.from_arrays(X, Y, CLASSES)
    for call in (
        lambda m: Square(queries=20)(m, X, Y, sg.linf(0.3)).success,
        lambda m: RandomNoise(draws=5)(m, X, Y, sg.l2(1.0)).success,
        lambda m: torch.from_numpy(sg.evaluate(m, data, Square(queries=20), sg.linf(0.3))["success"]),
    ):
        assert torch.equal(call(model), call(NET))
    if box == "probabilities":
        return  # its logits are others, by a constant for each input
    method = ATTRIBUTIONS["occlusion"].method()
    torch.testing.assert_close(method(model, X, Y), method(NET, X, Y), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["square", "random_noise"])
def test_attacks_that_say_so_need_no_gradient(name: str) -> None:
    attack = cheap(name)
    assert not attack.needs_gradient
    for norm in attack.norms:
        threat = Threat(norm, {"linf": 0.2, "l2": 0.5, "l1": 1.0, "l0": 3.0}[norm])
        found, wanted = (attack(m, X, Y, threat) for m in (sg.BlackBox(_logits), NET))
        assert torch.equal(found.success, wanted.success)
        assert not found.backwards.any()


@pytest.mark.parametrize("box", BOXES)
def test_what_follows_gradients_refuses_it_by_name(box: str) -> None:
    model, data = BOXES[box](), sg.data.from_arrays(X, Y, CLASSES)
    for call in (
        lambda: FGSM()(model, X, Y, sg.linf(0.1)),
        lambda: PGD(steps=2).perturb(model, X, Y, sg.linf(0.1)),
        lambda: DeepFool()(model, X, Y, sg.l2(1.0)),
        lambda: Saliency()(model, X, Y),
        lambda: sg.bounds.LinearizedDeviation()(model, X, Y, sg.linf(0.1)),
        lambda: sg.audit(model, data, sg.linf(0.1), attacks=[PGD(steps=2)]),
    ):
        with pytest.raises(sg.UsageError, match=r"gradient|derivative"):
            call()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor")
def test_a_quantized_module_is_recognized() -> None:
    model = _quantized()
    assert Square(queries=5)(model, X, Y, sg.linf(0.3)).success.any()
    found = sg.audit(model, sg.data.from_arrays(X, Y, CLASSES), sg.linf(0.3), attacks=BLIND, gallery=0)
    assert not found.summary["models"][0]["gradients"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: "cat", "must return numbers"),
        (lambda x: [["a"]], "must return numbers"),
        (lambda x: None, r"got shape \(\)"),
        (lambda x: _logits(x)[:, 0], r"got shape \(8,\)"),
        (lambda x: _probabilities(x), "returns probabilities"),
        (lambda x: _logits(x)[:3], r"got shape \(3, 3\)"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_a_function_may_not_return(function: Any, message: str) -> None:
    with pytest.raises(sg.UsageError, match=message):
        Square(queries=2)(sg.BlackBox(function), X, Y, sg.linf(0.1))


def test_what_is_no_function_or_no_probability_is_refused() -> None:
    with pytest.raises(sg.UsageError, match=r"function must take an array .* got str"):
        sg.BlackBox("model.onnx")
    with pytest.raises(sg.UsageError, match=r"outside of \[0, 1\]: these are no probabilities"):
        sg.BlackBox(_logits, probabilities=True)(X)


def test_results_of_a_black_box_are_kept_for_this_process_only() -> None:
    assert model_key(sg.BlackBox(_logits)).unreadable == ("the function in a BlackBox",)
    assert model_key(sg.BlackBox(_logits), version="1").unreadable == ()


# Audits

BLIND = [Square(queries=20), RandomNoise(draws=3)]
AUDITED: dict[str, Any] = {
    **{name: BOXES[name] for name in ("an array", "in a classifier", "detached", "no gradients inside")},
    "quantized": lambda: _quantized(),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("box", AUDITED)
def test_an_audit_searches_it_blind_and_says_so(box: str, tmp_path: Path) -> None:
    model, threat = AUDITED[box](), sg.linf(0.2)
    x = nets.inputs(30)
    with torch.no_grad():
        y = (NET(x).argmax(1) + (torch.arange(30) % 5 == 0)) % CLASSES
    data = sg.data.from_arrays(x, y, CLASSES)
    found = sg.audit(
        {"box": model}, data, threat, attacks=BLIND, out=tmp_path / "run", version="1", explanations=True, neurons=True
    )
    page = sg.report.write(tmp_path / "run").read_text(encoding="utf-8")
    (row,) = found.summary["models"]
    with torch.no_grad():
        right = sum(int(int(model(x[i : i + 1]).argmax()) == int(y[i])) for i in range(30))
    assert row["clean"]["value"] == right / 30
    # In the order of the audit: dynamic quantization depends on the batch.
    alone = sg.evaluate(model, data.draw(30, 0), BLIND[0], threat)["success"]
    assert row["attacks"][0]["accuracy"]["value"] == (~alone).mean()
    assert row["robust"]["value"] <= (~alone).mean() < row["clean"]["value"]
    assert not any(attack["backwards"] for attack in row["attacks"])
    assert row["gradients"] is False
    assert [found["about"] for found in row["findings"] if found["warning"]] == ["gradients"]
    assert all(row[key] is None for key in ("distances", "rho2", "gradient_norm"))
    assert row["explanations"] == []
    checks = {check["name"]: check for check in row["verdict"]["checks"]}
    for name in ("gradient there", "iterations help", "no derivative in the forward"):
        assert checks[name]["passed"] is None
        assert "no gradient" in checks[name]["text"]
    assert checks["steps suffice"]["passed"] is not None
    refuted = any(check["passed"] is False for check in checks.values())
    assert (row["verdict"]["text"] == "number holds, by blind search only") is not refuted
    for part in (
        found.summary["explained"]["models"]["box"]["attributions"],
        [found.summary["neurons"]["models"]["box"]],
    ):
        assert all(any(word in entry["refused"] for word in ("gradient", "derivative")) for entry in part)
    assert "searched blind only" in page
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "run" / "config.toml", tmp_path / "again")
    shutil.copytree(tmp_path / "run" / "tables", tmp_path / "again" / "tables")
    assert read(tmp_path / "again").summary == found.summary
    assert sg.report.write(tmp_path / "again").read_text(encoding="utf-8") == page


def test_beside_a_model_with_gradients_each_is_searched_in_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, "fast", (PGD(steps=3), FGSM()))
    monkeypatch.setitem(SUITES, "blind", tuple(BLIND))
    other, data, threat = (
        nets.build("mlp", seed=1, activation=nn.Softplus),
        sg.data.from_arrays(X, Y, CLASSES),
        sg.linf(0.2),
    )
    models = {"box": sg.BlackBox(_logits), "other": other}
    box, plain = (found := sg.audit(models, data, threat).summary)["models"]
    assert [a["name"] for a in box["attacks"]] == ["square", "random_noise"]
    assert [a["name"] for a in plain["attacks"]] == ["pgd", "fgsm"]
    assert box["rho2"] is None
    assert plain["rho2"] is not None
    assert found["transfer"]["attack"] == "Square, 20 queries or PGD, 3 steps"
    # What is made on the box, and on the other, is what is made on the network that it is.
    for place, attack in enumerate((BLIND[0], PGD(steps=3))):
        twins = sg.audit({"box": NET, "other": other}, data, threat, attacks=[attack], gallery=0).summary
        assert found["transfer"]["accuracy"][place] == twins["transfer"]["accuracy"][place]


def test_attacks_that_need_a_gradient_are_refused_by_name() -> None:
    data = sg.data.from_arrays(X, Y, CLASSES)
    for attacks, named in (([PGD(steps=2)], "PGD, 2 steps"), ([Square(), Standard()], "Standard"), ([FGSM()], "FGSM")):
        with pytest.raises(sg.UsageError, match=rf"BlackBox gives no gradient, and {named}.*attacks=.sg.attacks.Sq"):
            sg.audit(sg.BlackBox(_logits), data, sg.linf(0.1), attacks=attacks)


def test_checks_of_its_number_need_no_gradient_either() -> None:
    found = sg.validity(sg.BlackBox(_logits), sg.data.from_arrays(X, Y, CLASSES), BLIND[0], sg.linf(0.2))
    assert {check.name for check in found.checks if check.passed is None} >= {"gradient there", "iterations help"}


# One logit for two classes


class OneLogit(nn.Module):
    def __init__(self, flat: bool, end: nn.Module) -> None:
        super().__init__()
        self.net, self.flat, self.end = nets.build("mlp", classes=1, activation=nn.Softplus), flat, end

    def forward(self, x: Tensor) -> Tensor:
        z = self.end(self.net(x))
        return z[:, 0] if self.flat else z


LABELS = torch.tensor([0, 1] * 4)


@pytest.mark.parametrize("flat", [False, True])
def test_one_logit_is_that_of_the_second_class(flat: bool) -> None:
    one = OneLogit(flat, nn.Identity())
    model = sg.Classifier(one, binary=True, classes=["no", "yes"])
    z = one.net(X)[:, 0]
    torch.testing.assert_close(model(X).softmax(1)[:, 1], torch.sigmoid(z))
    leaf = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(nn.functional.binary_cross_entropy_with_logits(one.net(leaf)[:, 0], LABELS.float(), reduction="sum"), leaf)  # fmt: skip  # noqa: E501
    torch.testing.assert_close(Saliency(of="loss")(model, X, LABELS), slope)
    points = (X + 0.1 * slope.sign()).clamp(0, 1)
    torch.testing.assert_close(FGSM(loss="ce").perturb(model, X, LABELS, sg.linf(0.1)), points)
    both = Saliency()(model, X, torch.zeros_like(LABELS)), Saliency()(model, X, torch.ones_like(LABELS))
    torch.testing.assert_close(both[0], -both[1])
    data = sg.data.from_arrays(X, LABELS, ["no", "yes"])
    found = sg.audit(model, data, sg.linf(0.05), attacks=[FGSM()], gallery=0).summary["models"][0]
    assert found["clean"]["value"] == float(((z > 0).long() == LABELS).float().mean())
    fitted = sg.fit(model, sg.defenses.Plain(), data, settings=sg.FitSettings(epochs=1, batch_size=4))
    assert fitted is not None


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("inside", ["plain", "classifier"])
def test_one_logit_is_refused_with_the_way_out(flat: bool, inside: str) -> None:
    model: Any = OneLogit(flat, nn.Identity())
    model = sg.Classifier(model) if inside == "classifier" else model
    data = sg.data.from_arrays(X, LABELS, 2)
    for call in (
        lambda: FGSM()(model, X, LABELS, sg.linf(0.1)),
        lambda: Saliency()(model, X, LABELS),
        lambda: sg.audit(model, data, sg.linf(0.1)),
        lambda: sg.evaluate(model, data, FGSM(), sg.linf(0.1)),
    ):
        with pytest.raises(sg.UsageError, match=r"one logit of two classes is taken by sg.Classifier\(module, b"):
            call()


def test_what_is_not_one_logit_is_not_binary() -> None:
    with pytest.raises(sg.UsageError, match=r"must return one logit \(N, 1\) for 8 inputs, got \(8, 3\)"):
        sg.Classifier(NET, binary=True)(X)
    with pytest.raises(sg.UsageError, match="has two classes, got 3"):
        sg.Classifier(NET, binary=True, classes=3)
    with pytest.raises(sg.UsageError, match="ends with a sigmoid"):
        sg.Classifier(OneLogit(False, nn.Sigmoid()), binary=True)(X)


def test_a_binary_classifier_comes_back_from_its_file(tmp_path: Any) -> None:
    one = OneLogit(False, nn.Identity())
    model = sg.Classifier(one, binary=True, classes=2)
    model.save(tmp_path / "m.safetensors")
    again = sg.Classifier(OneLogit(False, nn.Identity()), **{**model.settings, "name": "again"})
    assert torch.equal(again.load_weights(tmp_path / "m.safetensors")(X), model(X))
    assert gates.same(again.settings, {**model.settings, "name": "again"})
