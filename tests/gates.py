"""The four gates that every registered method passes, for any callable.

1. `assert_gradient`, `assert_weight_gradient`: derivatives equal central differences in float64.
2. `assert_same_to_second_order`: chunked = unchunked, in values and in derivatives.
3. `assert_batch_invariant`: a batch of N = N batches of one.
4. `assert_leaves_no_trace`: the model, the inputs and the global state are as before, after errors too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from steadygrad import randomness

STEP = 1e-5


class Interrupted(Exception):
    """What `failing` makes a model raise."""


def assert_gradient(
    function: Callable[[Tensor], Tensor], x: Tensor, *, directions: int = 6, rtol: float = 1e-5, seed: int = 0
) -> None:
    """The derivative of function(x), any shape to any shape, equals central differences in float64.

    Random weights make one number of the output; its gradient is compared along random directions.
    The gradient must not be zero, or the comparison would prove nothing.
    """
    x = _double(x)
    leaf = x.clone().requires_grad_()
    output = function(leaf)
    assert output.requires_grad, "the output carries no graph back to the input"
    generator = randomness.fresh(seed)
    weights = torch.randn(output.shape, generator=generator, dtype=x.dtype)
    (slope,) = torch.autograd.grad((output * weights).sum(), leaf)
    assert slope.abs().max() > 0, "the derivative is zero everywhere"
    for _ in range(directions):
        u = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        ahead, behind = (_value(function, x + sign * STEP * u, weights) for sign in (1, -1))
        _close((slope * u).sum(), (ahead - behind) / (2 * STEP), slope.norm() * u.norm(), rtol)


def _value(function: Callable[[Tensor], Tensor], x: Tensor, weights: Tensor) -> Tensor:
    # The function may itself need a graph (maps that are gradients), so no_grad is not an option.
    return (function(x.clone().requires_grad_()) * weights).sum().detach()


def assert_weight_gradient(
    scalar: Callable[[], Tensor], model: nn.Module, *, directions: int = 6, rtol: float = 1e-5, seed: int = 0
) -> None:
    """The derivative of scalar(), a number, with respect to the model's weights equals central differences.

    Every weight that takes part is moved along random directions and put back bit for bit.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    assert weights, "the model has no weights that require a gradient"
    assert all(p.dtype == torch.float64 for p in weights), "differences need float64"
    slopes = torch.autograd.grad(scalar(), weights, allow_unused=True)
    slopes = [torch.zeros_like(p) if s is None else s for s, p in zip(slopes, weights)]
    assert any(s.abs().max() > 0 for s in slopes), "the derivative is zero for every weight"
    generator = randomness.fresh(seed)
    before = [p.detach().clone() for p in weights]
    for _ in range(directions):
        us = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in weights]
        values = []
        for sign in (1, -1):
            _move(weights, [b + sign * STEP * u for b, u in zip(before, us)])
            values.append(scalar().detach())
        _move(weights, before)
        along = torch.stack([(s * u).sum() for s, u in zip(slopes, us)]).sum()
        size = torch.stack([s.norm() * u.norm() for s, u in zip(slopes, us)]).sum()
        _close(along, (values[0] - values[1]) / (2 * STEP), size, rtol)


def _move(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(weights, values):
            weight.copy_(value)


def _close(derivative: Tensor, difference: Tensor, size: Tensor, rtol: float) -> None:
    # Relative to the size of the gradient: a direction may be almost orthogonal to it.
    error = float((derivative.detach() - difference).abs() / size)
    assert error < rtol, f"derivative {float(derivative):.8g}, central difference {float(difference):.8g}"


def _double(x: Tensor) -> Tensor:
    assert x.dtype == torch.float64, f"differences need float64, got {x.dtype}"
    return x.detach()


def assert_same_to_second_order(
    reference: Callable[[Tensor], Tensor],
    others: Sequence[Callable[[Tensor], Tensor]],
    x: Tensor,
    *,
    rtol: float = 1e-9,
) -> None:
    """All functions give the values and the derivatives (of a random weighting) of the reference."""
    expected = _value_and_slope(reference, x)
    assert expected[1].abs().max() > 0, "the derivative is zero everywhere"
    for other in others:
        for got, want in zip(_value_and_slope(other, x), expected):
            torch.testing.assert_close(got, want, rtol=rtol, atol=rtol * float(want.abs().max()))


def _value_and_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().clone().requires_grad_()
    output = function(leaf)
    weights = torch.randn(output.shape, generator=randomness.fresh(3), dtype=torch.float64).to(output.dtype)
    (slope,) = torch.autograd.grad((output * weights).sum(), leaf)
    return output.detach(), slope


def assert_batch_invariant(call: Callable[..., Any], *batched: Tensor, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """call(batch)[n] = call(batch of the n-th sample alone)[0], for every tensor in the result.

    The result may be a tensor, or a tuple, mapping or dataclass of tensors with one row per sample.
    A method with a generator takes the index as one more batched tensor: see `generator_at`.
    """
    whole = tensors_of(call(*batched))
    assert whole, "the call returns no tensor"
    for n in range(len(batched[0])):
        alone = tensors_of(call(*(t[n : n + 1] for t in batched)))
        assert alone.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(
                alone[name][0], value[n], rtol=rtol, atol=atol, msg=lambda m, s=name, n=n: f"{s}, sample {n}: {m}"
            )


def generator_at(index: Tensor, seed: int = 0) -> torch.Generator:
    """The generator of `seed` after the draws of the samples before index[0], one seed each."""
    generator = randomness.fresh(seed)
    if int(index[0]):
        randomness.sample_seeds(int(index[0]), generator)
    return generator


def tensors_of(result: Any, name: str = "result") -> dict[str, Tensor]:
    """All tensors with at least one dimension in a result, by their path."""
    if isinstance(result, Tensor):
        return {name: result.detach()} if result.ndim else {}
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        result = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    if isinstance(result, dict):
        pairs = [(f"{name}.{key}", value) for key, value in result.items()]
    elif isinstance(result, (list, tuple)):
        pairs = [(f"{name}[{i}]", value) for i, value in enumerate(result)]
    else:
        pairs = []
    return {k: t for path, value in pairs for k, t in tensors_of(value, path).items()}


def assert_leaves_no_trace(
    model: nn.Module,
    call: Callable[[], Any],
    *,
    inputs: Sequence[Tensor] = (),
    allow: Collection[str] = (),
    failing_at: Sequence[int] = (0,),
) -> None:
    """call() changes nothing of the model, the inputs and the global state, and neither does a failure inside.

    The model is first put into a state that a careless "restore" would lose: mixed modes, some weights
    frozen, some with a gradient. That state stays; pass a model made for the test.

    Args:
        model: what `call` runs.
        call: the call under test.
        inputs: tensors it is given.
        allow: parts of `state_of` that may change ("buffers", "gradients", "random", ...).
        failing_at: forwards (0 is the first) at which the model raises in further runs of call.
    """
    unsettle(model)
    _assert_unchanged(model, call, inputs, allow)
    for forwards in failing_at:

        def interrupted(forwards: int = forwards) -> None:
            with failing(model, after=forwards):
                try:
                    call()
                except Interrupted:
                    return
            raise AssertionError(f"the call made no forward number {forwards}, or swallowed its error")

        _assert_unchanged(model, interrupted, inputs, allow)


def _assert_unchanged(
    model: nn.Module, call: Callable[[], Any], inputs: Sequence[Tensor], allow: Collection[str]
) -> None:
    before = state_of(model, inputs)
    call()
    after = state_of(model, inputs)
    for part in before.keys() - set(allow):
        assert same(before[part], after[part]), f"the call changed {part}: {before[part]} -> {after[part]}"


def unsettle(model: nn.Module) -> None:
    """Mixed modes, some weights frozen, some with a gradient: a state that must be found again exactly."""
    for i, module in enumerate(model.modules()):
        module.training = i % 2 == 0
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 3 != 1)
        if i % 2 == 0:
            parameter.grad = torch.full_like(parameter, 0.5 + i)


@contextlib.contextmanager
def failing(model: nn.Module, after: int) -> Iterator[None]:
    """The deepest first layer of the model raises `Interrupted` at the given forward."""
    layer = next(m for m in model.modules() if not list(m.children()) and not isinstance(m, nn.Flatten))
    original, count = layer.forward, 0

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        if count == after:
            raise Interrupted
        count += 1
        return original(*args, **kwargs)

    layer.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del layer.forward


def state_of(model: nn.Module, inputs: Sequence[Tensor] = ()) -> dict[str, Any]:
    """All that a method must leave alone, in parts."""
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    modules = dict(model.named_modules())
    return {
        "modes": {n: m.training for n, m in modules.items()},
        "modules": {n: (id(m), type(m), sorted(vars(m))) for n, m in modules.items()},
        "hooks": {n: _hooks(m) for n, m in modules.items()},
        "requires_grad": {n: p.requires_grad for n, p in parameters.items()},
        "gradients": {n: None if p.grad is None else (id(p.grad), p.grad.clone()) for n, p in parameters.items()},
        "weight hooks": {n: len(p._backward_hooks or ()) for n, p in parameters.items()},
        "weights": {n: (id(p), p.detach().clone()) for n, p in parameters.items()},
        "buffers": {n: (id(b), b.detach().clone()) for n, b in buffers.items()},
        "inputs": [(t.detach().clone(), t.requires_grad, t.grad is None, len(t._backward_hooks or ())) for t in inputs],
        "random": (torch.get_rng_state(), _python_and_numpy_state()),
        "settings": (torch.is_grad_enabled(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()),
    }


def _hooks(module: nn.Module) -> dict[str, list[int]]:
    return {k: list(v) for k, v in vars(module).items() if k.endswith("_hooks") and isinstance(v, dict)}


def _python_and_numpy_state() -> tuple[Any, ...]:
    name, keys, position, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - read, to see that it is left alone
    return random.getstate(), name, keys.tolist(), position, rest


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit, through mappings and sequences."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@contextlib.contextmanager
def counted(model: nn.Module) -> Iterator[dict[str, int]]:
    """Count calls of the model and the samples in them, and the same for backwards from its output."""
    passes = {"forwards": 0, "samples": 0, "backwards": 0, "samples_back": 0}

    def back(gradient: Tensor) -> None:
        passes["backwards"] += 1
        passes["samples_back"] += len(gradient)

    def count(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        passes["forwards"] += 1
        passes["samples"] += len(output)
        if output.requires_grad:
            output.register_hook(back)

    handle = model.register_forward_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def peak(call: Callable[[], object]) -> int:
    """The largest number of bytes that are allocated at once during the call; the same from run to run."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        call()
    results = watched.profiler.kineto_results  # type: ignore[union-attr]
    changes = [(e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]"]
    now = most = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        now += change
        most = max(most, now)
    return most
