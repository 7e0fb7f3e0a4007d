"""The layers of a network by name, and what their neurons put out.

A neuron is a channel of an image-like output (N, C, *), or (N, H, W, C) behind a linear layer, a unit of (N, D) or a
unit of tokens (N, T, D). Of a layer that puts out a tuple, such as attention, the first entry counts.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation

from steadygrad.arguments import arithmetic, public
from steadygrad.calling import AGAIN, eagerly, unwrap
from steadygrad.classifier import Classifier
from steadygrad.errors import UsageError, unknown_name
from steadygrad.turns import TURN

Layers = tuple[str, ...] | None
"""Glob patterns of layer names, or None for all activation modules but one that gives the logits."""

_NO_ACTIVATIONS = {"MultiheadAttention", "Softmax", "Softmax2d", "Softmin", "LogSoftmax"}
_ACTIVATIONS = tuple(getattr(activation, name) for name in activation.__all__ if name not in _NO_ACTIVATIONS)


@public
@contextlib.contextmanager
def recorded(model: nn.Module, layers: Layers = None) -> Iterator[dict[str, Tensor]]:
    """The outputs (N, *) of layers in the last forward of the block, by name, with a graph if there is one.

    Names are those of the network's modules, without `Classifier` and other wrappers. A module that is called again
    in the same forward has one name per call, "act" and "act:2", and a pattern without a colon takes all of them.
    Non-linearities that are function calls, and activation modules whose input is not the samples, are not seen.

    Args:
        layers: glob patterns such as ("conv*", "head.act"); None takes the activation modules.

    Raises:
        UsageError: no such layer, no activation modules, or an output that is no tensor with a row per sample.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> with recorded(model) as outputs:
    ...     logits = model(torch.rand(5, 2))
    >>> {name: tuple(value.shape) for name, value in outputs.items()}
    {'1': (5, 3)}
    """
    outputs: dict[str, Tensor] = {}
    # The value itself is kept, or its memory might be reused for the logits.
    latest: dict[str, Tensor] = {}

    def begin() -> None:
        outputs.clear()

    def visit(name: str, value: Tensor) -> None:
        # A copy: the next module may work in place.
        outputs[name] = value.clone()
        latest.clear()
        latest[name] = value

    def end(logits: Any) -> None:
        for name, value in latest.items():
            if layers is None and isinstance(logits, Tensor) and value.data_ptr() == logits.data_ptr():
                del outputs[name]
        latest.clear()

    patterns = _activations(model) if layers is None else layers
    with at_outputs(model, patterns, visit, begin=begin, end=end, strict=layers is not None):
        yield outputs


@contextlib.contextmanager
def at_outputs(
    model: nn.Module,
    patterns: tuple[str, ...],
    visit: Callable[[str, Tensor], Tensor | None],
    *,
    begin: Callable[[], None] = lambda: None,
    end: Callable[[Any], None] = lambda logits: None,
    strict: bool = True,
) -> Iterator[None]:
    """Call `visit` with the name and the output of each layer; what it returns, if anything, takes its place.

    `begin` is called before a forward of the model, `end` with what it returns. An output that is not one tensor
    with a row per sample is an error, or passed over if not `strict`. The channels of an image-like output that a
    linear layer has fed lie last in it, and second in what `visit` sees and returns.
    """
    modules = dict(_network(model).named_modules())
    del modules[""]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern.partition(":")[0]) for name in modules):
            raise unknown_name("layer", pattern, modules)
    for name, module in modules.items():
        if isinstance(module, torch.jit.ScriptModule) and any(fnmatchcase(name, p.partition(":")[0]) for p in patterns):
            raise UsageError(
                f"layer {name!r} is TorchScript, whose outputs cannot be seen: take the module it was made of"
            )
    calls: Counter[str] = Counter()
    rows, given = [0], [0]  # of the model, and of the network in it, whose batch may have been filled up
    fed: list[Tensor] = []  # what a linear layer put out last

    def again() -> None:
        calls.clear()
        begin()

    def start(module: nn.Module, args: Any) -> None:
        rows[0] = len(args[0])
        again()

    def enter(module: nn.Module, args: Any) -> None:
        given[0] = len(args[0])

    def stop(module: nn.Module, args: Any, logits: Any) -> None:
        fed.clear()
        end(logits)

    def feed(module: nn.Module, args: Any, output: Tensor) -> None:
        fed[:] = [output]

    def hook(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def after(module: nn.Module, args: Any, output: Any) -> Any:
            calls[name] += 1
            site = name if calls[name] == 1 else f"{name}:{calls[name]}"
            if not any(fnmatchcase(site, p) or fnmatchcase(name, p) for p in patterns):
                return None
            output, put_back = _first(output)
            if rows[0] < given[0] and isinstance(output, Tensor) and output.ndim and len(output) == given[0]:
                output, put_back = _without_filling(output, rows[0], put_back)
            tensor = isinstance(output, Tensor) and output.ndim > 1 and output.is_floating_point()
            if not tensor or len(output) != rows[0]:
                if not strict:
                    return None
                what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise UsageError(
                    f"layer {site!r} must put out a tensor of floats ({rows[0]}, *), a row per sample, got {what}: "
                    "leave it out"
                )
            linear = isinstance(module, nn.Linear) or any(given is value for given in args for value in fed)
            if output.ndim == 4 and linear:
                found = visit(site, output.movedim(-1, 1))
                found = None if found is None else found.movedim(1, -1)
            else:
                found = visit(site, output)
            return None if found is None else put_back(found)

        return after

    with TURN:  # hooks see what other threads do with the model too
        handles = [model.register_forward_pre_hook(start), model.register_forward_hook(stop)]
        handles.append(_network(model).register_forward_pre_hook(enter))
        AGAIN.append(again)
        try:
            handles += [m.register_forward_hook(feed) for m in modules.values() if isinstance(m, nn.Linear)]
            for name, module in modules.items():
                if any(fnmatchcase(name, p.partition(":")[0]) for p in patterns):
                    handles.append(module.register_forward_hook(hook(name)))
            with eagerly():  # compiled code does not see hooks that are new
                yield
        finally:
            AGAIN.remove(again)
            for handle in handles:
                handle.remove()


def _first(output: Any) -> tuple[Any, Callable[[Tensor], Any]]:
    """What a layer puts out first, as attention does beside its weights, and how to put another in its place."""
    if isinstance(output, tuple | list) and output:
        first, *rest = output
        make = getattr(type(output), "_make", type(output))
        return first, lambda value: make([value, *rest])
    return output, lambda value: value


def _without_filling(output: Tensor, rows: int, put_back: Callable[[Tensor], Any]) -> tuple[Any, Callable[..., Any]]:
    return output[:rows], lambda value: put_back(torch.cat([value, output[rows:]]))


@arithmetic
def neuron_axis(values: Tensor) -> int:
    """The axis of an output (N, *) along which its neurons lie."""
    return 2 if values.ndim == 3 else 1


def by_neuron(values: Tensor) -> Tensor:
    """An output (N, *) as (N, neurons, entries of a neuron).

    >>> import torch
    >>> by_neuron(torch.zeros(5, 3, 4, 4)).shape, by_neuron(torch.zeros(5, 7, 3)).shape
    (torch.Size([5, 3, 16]), torch.Size([5, 3, 7]))
    """
    return values.mT if values.ndim == 3 else values.flatten(2) if values.ndim > 2 else values[..., None]


def _network(model: nn.Module) -> nn.Module:
    """The network itself, inside wrappers that only pass inputs on or normalize them."""
    model = unwrap(model)
    while isinstance(model, Classifier) or getattr(model, "same_inputs", False):
        model = unwrap(model.module if isinstance(model, Classifier) else model.model)  # type: ignore[arg-type]
    return model


def _activations(model: nn.Module) -> tuple[str, ...]:
    network = _network(model)
    found = tuple(name for name, module in network.named_modules() if name and isinstance(module, _ACTIVATIONS))
    if not found:
        known = [name for name, _ in network.named_modules() if name]
        raise UsageError(
            "the model has no activation modules (are its non-linearities function calls?): name layers by pattern, "
            f"such as layers=({(known or ['...'])[0]!r},)"
        )
    return found
