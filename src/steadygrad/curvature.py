"""Whether the second derivatives of a model say how its gradients change; what has kinks is refused by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.arguments import Inputs, public
from steadygrad.calling import eagerly, unwrap
from steadygrad.classifier import Classifier
from steadygrad.derivatives import Function, gradient, hvp
from steadygrad.errors import UsageError
from steadygrad.smooth_forms import FORMS, STEPS
from steadygrad.smoothing import Kinks, Smooth
from steadygrad.turns import TURN

_POINTS = 64
"""On the line on which the second derivatives of a layer are summed."""


@public
def require_curvature(model: nn.Module, scalar: Function, x: Inputs) -> None:
    """Refuse a scalar function whose second derivative with respect to x is zero, wholly or in part; by four samples.

    Where a part of a network is piecewise linear, following derivatives does not see how that part changes the
    gradient, and explanations attacked so would seem robust. Max pooling is let pass: it hands on the curvature of the
    entries that it chooses (`smooth` takes it as log-sum-exp).

    Args:
        model: what the function runs; its layers with kinks are named.
        scalar: maps inputs (N, *) to one number each (N,).

    Raises:
        UsageError: with the layers and the way out.
    """
    probe = x[:4].detach()
    calls: dict[str, tuple[nn.Module, Tensor]] = {}
    with _watched(model, calls) as kinks, torch.enable_grad():
        scalar(probe.clone().requires_grad_())
    found = kinks.found | dict.fromkeys(_scripted(_innermost(model)), False)
    smoothed = any(isinstance(m, Smooth) for m in model.modules())
    if found:
        raise UsageError(_refusal(found, smoothed))
    for name, (layer, inputs) in calls.items():
        if not _follows(layer, inputs):
            raise UsageError(_refusal({(name, "its own autograd function"): False}, smoothed))
    u = randomness.normal(randomness.sample_seeds(len(probe), None), probe)
    try:
        product = hvp(scalar, probe, u)
    except (RuntimeError, UsageError) as error:
        raise UsageError(
            f"the model has no second derivative: {error}; replace that layer, or use a method of first order"
        ) from error
    if not bool(product.abs().max() > 0):
        smaller = "; or take a smaller beta, if all units are far from where they bend" if smoothed else ""
        raise UsageError(
            "the second derivative of this function is zero everywhere, so its gradient is impossible to move: the "
            "score is linear in the inputs there, and its map the same for all; explain a curved score, such as "
            f'of="log_probability"{smaller}'
        )


def _refusal(found: dict[tuple[str, str], bool], smoothed: bool) -> str:
    rows = {f"{function} in {layer or 'the model'}": soft for (layer, function), soft in found.items()}
    stuck = [row for row, soft in rows.items() if smoothed or not soft]
    if stuck:
        way = f"there is no smooth form of {_few(stuck)}: replace it by a function with curvature, such as softplus"
    else:
        way = "use sg.smooth(model, beta=50), or activations with curvature"
    return (
        "the gradient of this model jumps, and its second derivative is zero everywhere or leaves that out: "
        f"{_few([*rows])}; its maps would seem impossible to move: {way}"
    )


def _few(rows: list[str]) -> str:
    return ", ".join(rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")


@contextlib.contextmanager
def _watched(model: nn.Module, calls: dict[str, tuple[nn.Module, Tensor]]) -> Iterator[Kinks]:
    """Notes kinks by layer, and layers with autograd functions of their own with the inputs that they are given."""
    kinks, stack, handles = Kinks(model), [""], []
    seen: set[Any] = set()
    kinks.where = lambda: stack[-1]

    def enter(title: str) -> Any:
        return lambda module, args: stack.append(title)

    def leave(title: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            stack.pop()
            if len(args) == 1 and isinstance(args[0], Tensor) and _own_functions(out, args[0], seen):
                calls.setdefault(title, (module, args[0].detach()))

        return hook

    with TURN:  # hooks see what other threads do with the model too
        for name, module in _innermost(model).named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                title = f"{name} ({type(module).__name__})" if name else f"the forward of {type(module).__name__}"
                handles.append(module.register_forward_pre_hook(enter(title)))
                handles.append(module.register_forward_hook(leave(title)))
        try:
            with eagerly(), kinks:
                yield kinks
        finally:
            for handle in handles:
                handle.remove()


def _innermost(model: nn.Module) -> nn.Module:
    """The module whose layers have the names that its author knows."""
    inner = unwrap(model)
    while isinstance(inner, Classifier) or getattr(inner, "same_inputs", False):
        inner = unwrap(inner.module if isinstance(inner, Classifier) else inner.model)  # type: ignore[arg-type]
    return inner


def _own_functions(out: Any, given: Tensor, seen: set[Any]) -> bool:
    """Whether a new node between an output and the input is of a function that is not PyTorch's."""
    start = out.grad_fn if isinstance(out, Tensor) else None
    waiting, own, passed = [start] if start is not None else [], False, set()
    while waiting:
        node = waiting.pop()
        if node in passed or node is given.grad_fn:
            continue
        passed.add(node)
        # Nodes of the layers inside were seen already; those between them are the layer's own.
        own |= node not in seen and isinstance(node, torch.autograd.function.BackwardCFunction)
        seen.add(node)
        waiting += [parent for parent, _ in node.next_functions if parent is not None]
    return own


def _follows(layer: nn.Module, x: Tensor) -> bool:
    """Whether the second derivatives of a layer, summed along a line, come to the change of its gradient."""
    seeds = randomness.sample_seeds(len(x), None)
    way = randomness.normal(seeds, x) * x.std().clamp_min(1e-3)
    weights = randomness.normal(seeds, layer(x).detach(), 1)

    def value(points: Tensor) -> Tensor:
        out: Tensor = layer(points) * weights
        return out.flatten(1).sum(1)

    def along(direction: Tensor) -> Tensor:
        return (direction * way).flatten(1).sum(1)

    change = along(gradient(value, x + way)[1] - gradient(value, x - way)[1])
    try:
        steps = [along(hvp(value, x + (2 * (i + 0.5) / _POINTS - 1) * way, way)) for i in range(_POINTS)]
    except RuntimeError:
        return False
    summed = torch.stack(steps)
    slack = 0.05 * (change.abs() + summed.abs().mean(0) * 2) + 1e-4 * along(gradient(value, x)[1]).abs()
    return bool(((change - 2 * summed.mean(0)).abs() <= slack).all())


def _scripted(model: nn.Module) -> list[tuple[str, str]]:
    """Functions with kinks in TorchScript, which cannot be seen as they are called: layer and function."""
    found: list[tuple[str, str]] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer.split(' ')[0]}.") for outer, _ in found)
        if isinstance(module, torch.jit.ScriptModule) and hasattr(module, "inlined_graph") and not inside:
            kinds = {node.kind().removeprefix("aten::").rstrip("_") for node in _nodes(module.inlined_graph)}
            found += [(f"{name or 'the model'} (TorchScript)", kind) for kind in sorted(kinds & {*FORMS, *STEPS})]
    return found


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
