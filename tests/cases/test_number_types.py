"""Models in half, bfloat16 and double precision: inputs come in their type, numbers are close to single precision."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
import steadygrad as sg
from cases.all_calls import CALLS, CLASSES, READ_LAYERS, Inside
from steadygrad.attacks import FGSM, PGD
from steadygrad.attributions import ATTRIBUTIONS, IntegratedGradients, Saliency

NARROW = (torch.bfloat16, torch.float16)
TYPES = (*NARROW, torch.float64)
ROUNDING = {torch.bfloat16: 0.03, torch.float16: 0.004, torch.float64: 1e-5}


@pytest.fixture(scope="module")
def batch() -> tuple[nn.Module, Tensor, Tensor]:
    net, x = nets.build("mlp", activation=nn.Softplus), nets.inputs(6)
    y = net(x).argmax(1)
    y[0] = (y[0] + 1) % CLASSES
    return Inside(net), x, y


def _share(a: Tensor, b: Tensor) -> float:
    return float((a.detach().double() - b.detach().double()).norm() / b.detach().double().norm())


@pytest.mark.parametrize("kind", ["mlp", "conv", "residual", "attention"])
@pytest.mark.parametrize("dtype", TYPES)
def test_logits_and_gradients_are_those_of_the_model_but_for_rounding(kind: str, dtype: torch.dtype) -> None:
    net = nets.build(kind, activation=nn.GELU)
    x, target = nets.inputs(5), torch.tensor([0, 1, 2, 0, 1])
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(net(leaf).log_softmax(1).gather(1, target[:, None]).sum(), leaf)  # a plain loop
    model = copy.deepcopy(net).to(dtype)
    for classifier in (model, sg.Classifier(model, classes=CLASSES), copy.deepcopy(sg.Classifier(net)).to(dtype)):
        for inputs in (x, x.to(dtype), x.double()):
            maps = Saliency(of="log_probability")(classifier, inputs, target)
            assert maps.dtype == inputs.dtype
            assert _share(maps, wanted) < ROUNDING[dtype]
            with sg.frozen(classifier) as called:
                logits = called(inputs)
            assert logits.dtype.itemsize >= 4
            assert _share(logits, net(x)) < ROUNDING[dtype]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), list(zip(CALLS, itertools.cycle(TYPES), strict=False)))
def test_every_method_takes_the_model_and_leaves_it(batch, name: str, dtype: torch.dtype) -> None:
    net, x, y = batch
    model = copy.deepcopy(net).to(dtype)
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)
    wanted = gates.tensors_of(CALLS[name](net, x, y))
    torch.manual_seed(0)
    if name in READ_LAYERS and "defense" not in name and dtype in NARROW:
        # The table of a measure that may refuse holds the error.
        with pytest.raises(
            (sg.UsageError, AssertionError), match=f"exact arithmetic, .* a model in {dtype} .* bound model.float"
        ):
            CALLS[name](model, x, y)
        return
    found = gates.tensors_of(CALLS[name](model, x, y))
    assert found.keys() == wanted.keys()
    assert gates.same(model.state_dict(), before)
    if dtype == torch.float64 and "randomized" not in name:  # random weights are drawn in the type of the weights
        for part, value in wanted.items():
            torch.testing.assert_close(found[part].double(), value.double(), rtol=2e-3, atol=2e-4, equal_nan=True)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=5), FGSM(loss="ce")], ids=str)
def test_a_confident_model_is_attacked_as_in_single_precision(honest, digits, dtype: torch.dtype, attack: Any) -> None:
    data = digits.take(60)
    # Logits twenty times as far apart: gradients of the cross-entropy below what half precision can hold.
    sure = sg.Classifier(nn.Sequential(*honest.module, _Times(20.0)), classes=10)
    model = copy.deepcopy(sure).to(dtype)
    wanted, found = (sg.evaluate(m, data, attack, sg.linf(0.1)) for m in (sure, model))
    coarse = dtype == torch.bfloat16  # whose logits of some 100 are half a unit apart
    assert (wanted["success"] == found["success"]).mean() > (0.9 if coarse else 0.96)
    assert found["zero_gradient"].sum() <= wanted["zero_gradient"].sum() + 8 * coarse


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES)
def test_an_audit_gives_the_numbers_of_single_precision(honest, digits, dtype: torch.dtype) -> None:
    data, model = digits.take(60), copy.deepcopy(honest).to(dtype)
    before = {name: value.dtype for name, value in model.state_dict().items()}
    rows = [
        sg.audit({"m": m}, data, sg.linf(0.05), attacks=[PGD(steps=10)], gallery=2, checked=20).summary["models"][0]
        for m in (honest, model)
    ]
    for number in ("clean", "robust"):
        assert abs(rows[0][number]["value"] - rows[1][number]["value"]) < 0.04
    assert {name: value.dtype for name, value in model.state_dict().items()} == before


class _Mixed(nn.Module):
    """A body in half precision and a head in single precision, as quantized or pruned models come."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.body = copy.deepcopy(net[:-1]).to(torch.bfloat16)
        self.head = copy.deepcopy(net[-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).float())


def test_a_model_of_several_types_gets_inputs_in_that_of_its_first_weights(batch) -> None:
    net, x, y = batch
    model = _Mixed(net.net)
    assert _share(Saliency()(model, x, y), Saliency()(net, x, y)) < 0.03
    assert FGSM()(model, x, y, sg.linf(0.1)).inputs.dtype == torch.float32


def test_a_model_under_autocast_gives_logits_in_single_precision(batch) -> None:
    net, x, y = batch
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = IntegratedGradients(steps=4)(net, x, y)
        attacked = FGSM()(net, x, y, sg.linf(0.1))
    assert maps.dtype == attacked.inputs.dtype == torch.float32
    assert _share(maps, IntegratedGradients(steps=4)(net, x, y)) < 0.03


@pytest.mark.parametrize("name", [row.name for row in ATTRIBUTIONS if row.order])
def test_maps_of_single_precision_do_not_depend_on_the_wrapper(batch, name: str) -> None:
    net, x, y = batch
    method = ATTRIBUTIONS[name].method()
    assert torch.equal(method(net, x, y), method(sg.Classifier(net), x, y))


@pytest.mark.parametrize("inside", ["plain", "classifier"])
def test_weights_without_values_are_refused(batch, inside: str) -> None:
    net, x, y = batch
    model = copy.deepcopy(net).to("meta")
    wrapped = sg.Classifier(model, classes=CLASSES) if inside == "classifier" else model
    for call in (
        lambda: FGSM()(wrapped, x, y, sg.linf(0.1)),
        lambda: Saliency()(wrapped, x, y),
        lambda: sg.evaluate(wrapped, sg.data.from_arrays(x, y, CLASSES), FGSM(), sg.linf(0.1)),
        lambda: sg.audit(wrapped, sg.data.from_arrays(x, y, CLASSES), sg.linf(0.1)),
    ):
        with pytest.raises(sg.UsageError, match=r"net.1.weight are on the meta device, .* load them first"):
            call()


def test_weights_that_are_not_made_yet_are_refused(batch) -> None:
    _, x, y = batch
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(CLASSES))
    for call in (
        lambda: FGSM()(lazy, x, y, sg.linf(0.1)),
        lambda: Saliency()(lazy, x, y),
        lambda: sg.audit(lazy, sg.data.from_arrays(x, y, CLASSES), sg.linf(0.1)),
        lambda: sg.fit(sg.Classifier(lazy, classes=CLASSES), sg.defenses.Plain(), sg.data.from_arrays(x, y, CLASSES)),
    ):
        with pytest.raises(sg.UsageError, match=r"1.weight are made in the first forward .* on one batch first"):
            call()
    lazy(x)
    assert Saliency()(lazy, x, y).shape == x.shape
