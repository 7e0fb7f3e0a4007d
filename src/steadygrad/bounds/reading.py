"""Reads a model's modules and forward as a network of layers that have bounds."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.bounds.network import At, Builder, Network, times
from steadygrad.bounds.rules import CALLS, MODULES, SUPPORTED
from steadygrad.classifier import Classifier, unwrap
from steadygrad.derivatives import Smooth
from steadygrad.errors import Failure, UsageError

__all__ = ["read"]


def read(model: nn.Module, x: Tensor, *, beta: float | None = None) -> Network:
    """The layers of a model in evaluation mode, checked against the model on inputs x (N, *).

    Args:
        beta: read rectifiers as softplus(beta), as `Smooth` does.

    Raises:
        UsageError: a layer or an operation that has no bounds, named.
        Failure: the layers do not compute what the model does.
    """
    reader = _Reader(x[:1].detach().double(), beta)
    last = reader.module(model, 0, type(model).__name__)
    network = Network(reader.steps)
    if last != len(reader.steps):
        raise UsageError("the model's output is not that of its last layer, so its layers cannot be put in a row")
    if beta is None:
        with torch.no_grad():
            expected, got = model(x).double(), network(x.double())
        scale = 1 + float(expected.abs().max())
        error = float((got - expected).abs().max()) if got.shape == expected.shape else math.inf
        # The model may run in single precision.
        if not error <= 1e-3 * scale:
            raise Failure(
                f"the layers read from {type(model).__name__} give other logits than the model (by {error:.3g}): "
                "does its forward depend on the values or the shape of its input?"
            )
    return network


@dataclass
class _Reader(Builder):
    def module(self, module: nn.Module, at: int, name: str) -> int:
        """Read a module that takes value `at`; returns where its output is."""
        module = unwrap(module)
        if isinstance(module, Smooth):
            before, self.beta = self.beta, module.beta
            at = self.module(module.model, at, name)
            self.beta = before
            return at
        if isinstance(module, Classifier):
            x = self.samples[0]
            mean, std = (module._per_channel(v.double(), x) for v in (module.mean, module.std))
            mean, std = (v[0] if v.ndim else v for v in (mean, std))
            if bool((mean != 0).any() | (std != 1).any()):
                at = self.affine(at, times, 1 / std, -mean / std)
            return self.module(module.module, at, name)
        read = next((rule for kind, rule in MODULES.items() if type(module) is kind), None)
        if read is not None:
            return read(self, module, at)
        if type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential):
            raise UsageError(
                f"there is no certified bound for {type(module).__name__} ({name}); there are for {SUPPORTED}"
            )
        return self.traced(module, at, name)

    def traced(self, module: nn.Module, at: int, name: str) -> int:
        from torch import fx

        class Tracer(fx.Tracer):
            def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
                return isinstance(m, Classifier | Smooth) or super().is_leaf_module(m, module_qualified_name)

        try:
            graph = Tracer().trace(module)
        except Exception as error:
            raise UsageError(
                f"the forward of {type(module).__name__} ({name}) cannot be read as a fixed row of layers: {error}"
            ) from error
        values: dict[fx.Node, Any] = {}
        started = False
        for node in graph.nodes:
            if node.op == "output":
                result = self.plain(node.args[0], values)
                if not isinstance(result, At):
                    raise UsageError(f"the forward of {type(module).__name__} ({name}) must return one tensor")
                return result.place
            if node.op == "placeholder":
                values[node] = None if started else At(at)
                started = True
            elif node.op == "get_attr":
                value = operator.attrgetter(str(node.target))(module)
                values[node] = value.detach().double() if isinstance(value, Tensor) else value
            else:
                values[node] = self.call(module, node, values, name)
        raise AssertionError("a graph has an output")

    def plain(self, argument: Any, values: dict[Any, Any]) -> Any:
        from torch import fx

        return fx.node.map_arg(argument, lambda n: values[n])

    def call(self, module: nn.Module, node: Any, values: dict[Any, Any], name: str) -> Any:
        args, kwargs = self.plain(node.args, values), self.plain(node.kwargs, values)
        if node.op == "call_module":
            return At(self.module(module.get_submodule(node.target), args[0].place, f"{name}.{node.target}"))
        if not any(isinstance(v, At) for v in (*args, *kwargs.values())):
            return (
                node.target(*args, **kwargs) if node.op == "call_function" else getattr(args[0], node.target)(*args[1:])
            )
        key = node.target if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
        if node.target is getattr and args[1] == "shape":
            return self.samples[args[0].place].shape
        rule = CALLS.get(key)
        result = rule(self, *args, **kwargs) if rule is not None else NotImplemented
        if result is NotImplemented:
            raise UsageError(
                f"there is no certified bound for the operation {key!r} in {name}; there are for {SUPPORTED}"
            )
        return result
