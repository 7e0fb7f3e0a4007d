"""A model's modules and forward as a network of layers that have bounds."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from steadygrad.bounds.certified.network import Builder, Network, Value
from steadygrad.bounds.certified.rules import CALLS, MODULES, SUPPORTED
from steadygrad.calling import Called, unwrap, unwrapped
from steadygrad.classifier import Classifier
from steadygrad.errors import Failure, UsageError
from steadygrad.smoothing import Smooth


def trace(model: nn.Module, x: Tensor, *, live: bool = False) -> Network:
    """The layers of a model in evaluation mode, checked against the model on inputs x (N, *).

    Args:
        live: keep the weights as they are, with their gradients, for training; then nothing is checked.

    Raises:
        UsageError: a layer or an operation that has no bounds, named.
        Failure: the layers do not compute what the model does.
    """
    tracer = _Tracer(live=live)
    logits = tracer.module(model, Value(0, tracer.taken(x[:1].detach())), type(model).__name__)
    if logits.place != len(tracer.steps):
        raise UsageError("the model's output is not that of its last layer, so its layers cannot be put in a row")
    network = Network(tracer.steps)
    if not live:
        with torch.no_grad():
            expected, got = model(x).double(), network(x.double())
        scale = 1 + float(expected.abs().max())
        error = float((got - expected).abs().max()) if got.shape == expected.shape else math.inf
        if not error <= 1e-3 * scale:  # the model may run in single precision
            raise Failure(
                f"the layers read from {type(model).__name__} give other logits than the model (by {error:.3g}): "
                "does its forward depend on the values or the shape of its input?"
            )
    return network


_IN_PLACE = ("iadd", "isub", "imul", "itruediv")
_DRAWN = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.BatchNorm1d, nn.BatchNorm2d)
"""Modules that are other functions in training mode."""


@dataclass
class _Tracer(Builder):
    def module(self, module: nn.Module, x: Value, name: str) -> Value:
        """The output of a module that takes value x."""
        module = unwrap(module)
        if _is(module, Smooth):
            before = self.beta, self.soft_pools
            self.beta, self.soft_pools = module.beta, module.pooling
            x = self.module(module.model, x, name)
            self.beta, self.soft_pools = before
            return x
        if _is(module, Called):
            return self.module(module.model, x, name)
        if _is(module, Classifier):
            mean, std = (module._per_channel(self.constant(v, x.sample), x.sample) for v in (module.mean, module.std))
            mean, std = (v[0] if v.ndim else v for v in (mean, std))
            if bool((mean != 0).any() | (std != 1).any()):
                x = self.scale(x, 1 / std, -mean / std)
            logits, chosen = self.module(module.module, x, name), module.outputs
            return logits if chosen is None else self.unweighted(logits, lambda v: v.index_select(1, chosen))
        rule = MODULES.get(type(module))
        if rule is not None:
            if module.training and isinstance(module, _DRAWN) and not self.live:
                raise UsageError(f"there is no certified bound for {name} in training mode: call {name}.eval()")
            result = rule(self, module, x)
            if isinstance(result, Value) and getattr(module, "inplace", False):
                self.spoil(x, result)
            if not isinstance(result, Value):
                raise _without(f"{module} ({name})")
            return result
        if type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential):
            raise _without(f"{type(module).__name__} ({name})")
        return self.forward_of(module, x, name)

    def forward_of(self, module: nn.Module, x: Value, name: str) -> Value:
        """The output of a module's own forward, operation by operation."""
        from torch import fx

        class Tracer(fx.Tracer):
            def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
                return isinstance(m, Called | Classifier | Smooth) or super().is_leaf_module(m, module_qualified_name)

        what = f"the forward of {type(module).__name__} ({name})"
        try:
            graph = Tracer().trace(module)
        except Exception as error:
            raise UsageError(f"{what} cannot be read as a fixed row of layers: {error}") from error
        values: dict[fx.Node, Any] = {}
        for node in graph.nodes:
            args, kwargs = (fx.node.map_arg(a, lambda n: values[n]) for a in (node.args, node.kwargs))
            if node.op == "output":
                found = unwrapped(args[0], 1, lambda value: isinstance(value, Value))
                assert isinstance(found, Value)
                self.check(found)
                return found
            if node.op == "placeholder":
                values[node] = None if values else x
            elif node.op == "get_attr":
                value = operator.attrgetter(str(node.target))(module)
                # In their own type, in which the model computes with them.
                values[node] = value.detach() if isinstance(value, Tensor) and not self.live else value
            elif node.op == "call_module":
                values[node] = self.module(module.get_submodule(node.target), args[0], f"{name}.{node.target}")
            else:
                try:
                    values[node] = self.call(node.op, node.target, args, kwargs, name)
                except (RuntimeError, TypeError) as error:
                    raise UsageError(f"there is no certified bound for {node.target} in {what}: {error}") from error
        raise AssertionError("a graph has an output")

    def call(self, op: str, target: Any, args: Any, kwargs: Any, name: str) -> Any:
        """What a function or a method gives: a value in the network, or a constant."""
        if not any(isinstance(v, Value) for v in tree_leaves((args, kwargs))):
            return target(*args, **kwargs) if op == "call_function" else getattr(args[0], target)(*args[1:], **kwargs)
        if target is getattr and args[1] == "shape":
            return args[0].sample.shape
        if isinstance(target, type):
            return target(*args, **kwargs)  # what the model puts its logits in
        key = target if op == "call_method" else getattr(target, "__name__", str(target))
        # A function of the caller's own may have the name of one that is known.
        known = op == "call_method" or str(getattr(target, "__module__", None)).startswith(
            ("torch", "_operator", "None")
        )
        rule = CALLS.get(key) if known else None
        result = rule(self, *args, **kwargs) if rule is not None else NotImplemented
        if result is NotImplemented:
            raise _without(f"the operation {key!r} in {name}")
        changes = (key.endswith("_") and not key.endswith("__")) or key in _IN_PLACE or kwargs.get("inplace", False)
        if changes and isinstance(result, Value) and isinstance(args[0], Value):
            self.spoil(args[0], result)
        return result


W = TypeVar("W", bound=nn.Module)


def _is(module: nn.Module, kind: type[W]) -> TypeGuard[W]:
    """Whether a module is of a kind, and computes what this does."""
    return isinstance(module, kind) and type(module).forward is kind.forward


def _without(what: str) -> UsageError:
    return UsageError(f"there is no certified bound for {what}; there are for {SUPPORTED}")
