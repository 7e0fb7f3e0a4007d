"""The four gates over every attribution made of gradients, on a conv, a residual and an attention network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
from oracles import attributions as oracle
from steadygrad import smoothing
from steadygrad.attributions import ATTRIBUTIONS, Attribution
from steadygrad.errors import UsageError

# test_perturbation.py holds those made of values, which have no derivatives.
NAMES = [row.name for row in ATTRIBUTIONS if row.order > 0]
KINDS = ("conv", "residual", "attention")
# Few points: the gates compare, they do not explain.
SMALL: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 3, "baseline": 0.1, "chunk": 4},
    "smooth_grad": {"samples": 3, "chunk": 4, "seed": 5},
}
ORACLES: dict[str, Callable[..., Tensor]] = {
    "saliency": oracle.saliency,
    "input_x_gradient": oracle.input_x_gradient,
    "integrated_gradients": oracle.integrated_gradients,
    "smooth_grad": oracle.smooth_grad,
}
# Enough Gauss-Legendre points for the fine Riemann sum.
EXACT: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 20, "baseline": 0.1},
    "smooth_grad": {"samples": 5, "sigma": 0.2, "seed": 5},
}


def _setup(kind: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    x = nets.inputs(3, dtype=dtype)
    return nets.build(kind, dtype=dtype, activation=nn.GELU), x, torch.tensor([0, 2, 1])


def _method(name: str, **settings: Any) -> Attribution:
    return ATTRIBUTIONS[name].method(**{**SMALL.get(name, {}), **settings})


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_first_order_equals_the_oracle(name: str) -> None:
    model, x, target = _setup("conv")
    for of in ("logit", "probability", "log_probability", "loss", "log_odds"):
        settings = EXACT.get(name, {})
        extra = {k: v for k, v in settings.items() if k != "steps"}
        if name == "integrated_gradients":
            extra["points"] = 120
        maps = ATTRIBUTIONS[name].method(of=of, **settings)(model, x, target)
        want = ORACLES[name](model, x, target, of=of, **extra)
        torch.testing.assert_close(maps, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_second_order_equals_differences(kind: str, name: str) -> None:
    model, x, target = _setup(kind)
    method = _method(name)
    gates.assert_gradient(lambda p: method(model, p, target, create_graph=True), x)
    gates.assert_weight_gradient(lambda: method(model, x, target, create_graph=True).square().sum(), model)


@pytest.mark.parametrize("name", [name for name in NAMES if "chunk" in ATTRIBUTIONS[name].settings])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_nothing(kind: str, name: str) -> None:
    model, x, target = _setup(kind)
    whole, *parts = [_method(name, chunk=chunk) for chunk in (64, 1, 2, 4, 7)]
    torch.testing.assert_close(parts[1](model, x, target), whole(model, x, target), rtol=1e-9, atol=1e-12)
    gates.assert_same_to_second_order(
        lambda p: whole(model, p, target, create_graph=True),
        [lambda p, m=part: m(model, p, target, create_graph=True) for part in parts],
        x,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_batch_of_n_equals_n_batches_of_one(kind: str, name: str) -> None:
    model, x, target = _setup(kind, torch.float32)
    method = _method(name)
    gates.assert_batch_invariant(lambda p, t: method(model, p, t), x, target, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_inference_leaves_no_trace(kind: str, name: str) -> None:
    net, x, target = _setup(kind, torch.float32)
    model = nn.Sequential(nn.Dropout(0.5), net)
    x.requires_grad_()
    passes = 1 if name not in SMALL else 2
    gates.assert_leaves_no_trace(
        model, lambda: _method(name)(model, x, target), inputs=[x, target], failing_at=range(passes)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_call_with_a_graph_leaves_the_model_as_the_caller_set_it(name: str) -> None:
    net, x, target = _setup("attention", torch.float32)
    x.requires_grad_()
    gates.assert_leaves_no_trace(
        net, lambda: _method(name)(net, x, target, create_graph=True), inputs=[x, target], failing_at=(0, 1)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_smoothed_network_passes_where_its_rectifiers_are_refused(name: str) -> None:
    model, x, target = nets.build("conv", activation=nn.ReLU, dtype=torch.float64), *_setup("conv")[1:]
    method = _method(name)
    with pytest.raises(UsageError, match=r"sg\.smooth"):
        method(model, x.clone().requires_grad_(), target, create_graph=True)
    smooth = smoothing.smooth(model, beta=5.0)
    gates.assert_gradient(lambda p: method(smooth, p, target, create_graph=True), x, rtol=1e-4)


def test_every_registered_method_has_an_oracle() -> None:
    assert set(ORACLES) == set(NAMES)
