"""Layers without a second derivative, or without a first one for inputs, are told by name before the long work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

import steadygrad as sg
from attacks.cheap import cheap
from steadygrad.attacks import ATTACKS, FGSM
from steadygrad.attacks.maps.attribution_attacks import IFIA
from steadygrad.attributions import Saliency

X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6)


class _Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return upstream * ctx.saved_tensors[0].cos()


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)
        self.centers = nn.Parameter(torch.randn(10, 16))


class Distances(Parts):
    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(F.softplus(self.first(x.flatten(1))), self.centers)


class OnceInTheForward(Parts):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(_Sine.apply(self.first(x.flatten(1))))


class OnceInALayer(Parts):
    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return _Sine.apply(x)

    def __init__(self) -> None:
        super().__init__()
        self.sine = self.Layer()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.sine(self.first(x.flatten(1))))


class Reentrant(Parts):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.softplus(checkpoint(self.first, x.flatten(1), use_reentrant=True)))


class Recomputed(Parts):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.softplus(checkpoint(self.first, x.flatten(1), use_reentrant=False)))


WITHOUT_SECOND = {
    Distances: "_cdist_backward",
    OnceInTheForward: "its own autograd function in the forward of OnceInTheForward",
    OnceInALayer: r"its own autograd function in sine \(Layer\)",
}


@pytest.mark.parametrize("kind", WITHOUT_SECOND)
def test_second_order_is_refused_by_the_name_of_what_lacks_it(kind: type[nn.Module]) -> None:
    model = kind()
    assert Saliency()(model, X, Y).abs().sum() > 0
    assert FGSM()(model, X, Y, sg.linf(0.1)).success.any()
    for call in (
        lambda: IFIA(steps=2)(model, X, Y, sg.linf(0.1)),
        lambda: sg.bounds.LinearizedDeviation()(model, X, Y, sg.linf(0.1)),
        lambda: Saliency()(model, X.clone().requires_grad_(), Y, create_graph=True),
    ):
        with pytest.raises(sg.UsageError, match=WITHOUT_SECOND[kind]):
            call()


@pytest.mark.slow
@pytest.mark.parametrize("kind", WITHOUT_SECOND)
def test_an_audit_goes_on_and_says_what_was_not_measured(kind: type[nn.Module]) -> None:
    found = sg.audit(
        {"m": kind()}, sg.data.from_arrays(X, Y, 10), sg.linf(0.05), attacks=[FGSM()], gallery=0, checked=4,
        explanations=True, explanation_samples=2, explanation_steps=2, explanation_certified=1,
    ).summary  # fmt: skip
    assert found["models"][0]["robust"]["count"] == 6
    rows = found["explained"]["models"]["m"]["attributions"]
    assert len(rows) == 2
    for row in rows:
        assert "derivative" in row["refused"]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("row", [row for row in ATTACKS if row.method.needs_gradient], ids=lambda row: row.name)
def test_a_layer_without_a_gradient_for_inputs_is_told_by_every_attack(row: Any) -> None:
    model = Reentrant()
    for norm in row.norms:
        with pytest.raises(sg.UsageError, match="use_reentrant"):
            cheap(row.name)(model, X, model(X).argmax(1), sg.Threat(norm, 0.5))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_an_audit_says_so_before_anything_is_measured() -> None:
    data = sg.data.from_arrays(X, Y, 10)
    with pytest.raises(sg.UsageError, match=r"carries no gradient to its input \(When use_reentrant=True"):
        sg.audit(Reentrant(), data, sg.linf(0.1))
    plain, again = Recomputed(), Recomputed()
    again.forward = lambda x: again.last(F.softplus(again.first(x.flatten(1))))  # type: ignore[method-assign]
    assert torch.equal(FGSM()(plain, X, Y, sg.linf(0.1)).inputs, FGSM()(again, X, Y, sg.linf(0.1)).inputs)


_PENALTIES = {"input_gradient": "", "deep_defense": "", "jacobian": "", "attribution_cosine": ",eps=0.1"}
SECOND = [f"{name}:weight=1{more}" for name, more in _PENALTIES.items()] + ["plain + input_gradient:weight=1"]
FIRST = ("plain", "adversarial:eps=0.1", "trades:eps=0.1")


@pytest.mark.parametrize("kind", [OnceInTheForward, OnceInALayer])  # distances of many rows have a second derivative
@pytest.mark.parametrize("defense", SECOND)
def test_training_is_refused_where_a_part_of_the_gradient_would_be_left_out(
    kind: type[nn.Module], defense: str
) -> None:
    model, data = sg.Classifier(kind(), classes=10), sg.data.from_arrays(X, Y, 10)
    with pytest.raises(sg.UsageError, match=r"can be differentiated once only|own autograd"):
        sg.fit(model, sg.defenses.parse(defense), data, settings=sg.FitSettings(epochs=1))


@pytest.mark.parametrize("kind", WITHOUT_SECOND)
@pytest.mark.parametrize("defense", FIRST)
def test_training_of_first_order_takes_layers_without_a_second_derivative(kind: type[nn.Module], defense: str) -> None:
    model, data = sg.Classifier(kind(), classes=10), sg.data.from_arrays(X, Y, 10)
    found = sg.fit(model, sg.defenses.parse(defense), data, settings=sg.FitSettings(epochs=1, lr=0.1))
    assert not torch.equal(found.classifier.module.first.weight, model.module.first.weight)
