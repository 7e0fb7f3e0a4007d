"""The gates themselves: each lets a sound call pass and stops a broken one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
from steadygrad import randomness
from steadygrad.classifier import frozen


def _cube(x: Tensor) -> Tensor:
    return x**3


def test_gradient_passes_a_right_derivative_and_stops_wrong_ones() -> None:
    x = nets.inputs(2, dtype=torch.float64)
    gates.assert_gradient(_cube, x)
    with pytest.raises(AssertionError, match="central difference"):
        gates.assert_gradient(lambda p: p**2 * p.detach(), x)
    with pytest.raises(AssertionError, match="no graph"):
        gates.assert_gradient(lambda p: p.detach() ** 3, x)
    with pytest.raises(AssertionError, match="zero everywhere"):
        gates.assert_gradient(lambda p: (p > 0.5).double() + 0 * p, x)
    with pytest.raises(AssertionError, match="float64"):
        gates.assert_gradient(_cube, x.float())


def test_weight_gradient_passes_a_right_derivative_stops_a_wrong_one_and_restores_the_weights() -> None:
    model, x = nets.build("mlp", dtype=torch.float64), nets.inputs(2, dtype=torch.float64)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gates.assert_weight_gradient(lambda: model(x).square().sum(), model)
    with pytest.raises(AssertionError, match="central difference"):
        gates.assert_weight_gradient(lambda: (model(x) * model(x).detach()).sum(), model)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_second_order_stops_a_function_with_right_values_and_a_detached_part() -> None:
    x = nets.inputs(2, dtype=torch.float64)
    gates.assert_same_to_second_order(_cube, [lambda p: p * p * p], x)
    with pytest.raises(AssertionError):
        gates.assert_same_to_second_order(_cube, [lambda p: p * p * p.detach()], x)


@dataclass
class _Result:
    value: Tensor
    passes: int


def test_batch_gate_stops_a_result_that_depends_on_the_batch() -> None:
    x = nets.inputs(3)
    gates.assert_batch_invariant(lambda p: _Result(p * 2, len(p)), x)
    with pytest.raises(AssertionError, match=r"result\.value, sample 0"):
        gates.assert_batch_invariant(lambda p: _Result(p / p.max(), 0), x)
    with pytest.raises(AssertionError, match="sample"):
        gates.assert_batch_invariant(lambda p: {"a": (p, p.sum() + p)}, x)


def test_generator_at_gives_every_sample_its_own_seed() -> None:
    index = torch.arange(20)
    gates.assert_batch_invariant(
        lambda i: randomness.sample_seeds(len(i), gates.generator_at(i)), index, rtol=0, atol=0
    )


def _train(model: nn.Module, x: Tensor) -> None:
    model.train()(x)


def _hook(model: nn.Module, x: Tensor) -> None:
    model.register_forward_hook(lambda *_: None)
    model(x)


def _thaw(model: nn.Module, x: Tensor) -> None:
    model.requires_grad_(True)(x)


def _clear(model: nn.Module, x: Tensor) -> None:
    model.zero_grad()
    model(x)


def _weights(model: nn.Module, x: Tensor) -> None:
    with frozen(model), torch.no_grad():
        model(x)
        next(model.parameters()).mul_(1 + 1e-6)


def _seed(model: nn.Module, x: Tensor) -> None:
    with frozen(model):
        model(x)
    torch.manual_seed(3)


def _inputs(model: nn.Module, x: Tensor) -> None:
    with frozen(model):
        model(x.clamp_(0.2, 0.8))


@pytest.mark.parametrize(
    ("part", "call"),
    [
        ("modes", _train),
        ("hooks", _hook),
        ("requires_grad", _thaw),
        ("gradients", _clear),
        ("weights", _weights),
        ("random", _seed),
        ("inputs", _inputs),
    ],
)
def test_trace_gate_stops(part: str, call: Callable[[nn.Module, Tensor], None]) -> None:
    for allowed in (set(), {*gates.state_of(nn.Identity())} - {part}):
        model, x = nets.build("conv"), nets.inputs(2)
        with pytest.raises(AssertionError, match=f"changed {part}" if allowed else "changed"):
            gates.assert_leaves_no_trace(
                model, lambda m=model, x=x: call(m, x), inputs=[x], allow=allowed, failing_at=()
            )
        torch.manual_seed(0)


def test_trace_gate_stops_batch_statistics_and_what_is_lost_on_an_error_only() -> None:
    model, x = nets.build("conv"), nets.inputs(2)
    with pytest.raises(AssertionError, match="buffers"):
        gates.assert_leaves_no_trace(model, lambda: model.train()(x), allow=["modes"], failing_at=())

    def careless() -> None:
        modes = [m.training for m in model.modules()]
        model.eval()(x)
        for module, training in zip(model.modules(), modes):
            module.training = training

    gates.assert_leaves_no_trace(model, careless, failing_at=())
    with pytest.raises(AssertionError, match="modes"):
        gates.assert_leaves_no_trace(model, careless)


def test_counted_counts_forwards_and_backwards_and_leaves_no_hook() -> None:
    model, x = nets.build("conv"), nets.inputs(3)
    with gates.counted(model) as passes:
        model(x.requires_grad_()).sum().backward()
        model(x)
    assert passes == {"forwards": 2, "samples": 6, "backwards": 1, "samples_back": 3}
    assert not model._forward_hooks
