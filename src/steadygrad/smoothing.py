"""Piecewise linear functions as smooth ones: which calls of a model have kinks, and what stands in for them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from steadygrad.arguments import Inputs, public
from steadygrad.calling import eagerly, logits_of
from steadygrad.classifier import frozen
from steadygrad.smooth_forms import DISPATCHED, FORMS, POOLS, STEPS, Beta
from steadygrad.values import Positive

_COMPARISONS = {
    **dict.fromkeys(["gt", "ge", "greater", "greater_equal"], 1),
    **dict.fromkeys(["lt", "le", "less", "less_equal"], -1),
}

_CASTS = ("float", "double", "half", "bfloat16", "to", "type", "type_as")
_GATED = ("mul", "multiply", "where", "masked_fill", *_CASTS)


class _Traced(TorchFunctionMode):
    """Sees every function that a forward calls, in modules and functional code alike.

    Left alone is what follows from weights and constants only: a weight that is clamped has no kink in the input.
    Comparisons (N, *) of what follows from the input are remembered with their margins, positive where they hold.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._weights = {id(t) for t in (*model.parameters(), *model.buffers())}
        self._constants: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._margins: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = DISPATCHED.get(func) or str(getattr(func, "__name__", ""))
        name = given.split(".")[0].strip("_")
        tensors = list(_tensors((*args, *kwargs.values())))
        if name.endswith("_like") or name.startswith("new_") or all(map(self._constant, tensors)):
            out = func(*args, **kwargs)
            for tensor in _tensors((out,)):
                self._constants[tensor] = True
            return out
        if func is Tensor.where:
            args = (args[1], args[0], *args[2:])
            func = torch.where
        masks = [t for t in tensors if t in self._margins]
        out = self.called(name, func, args, kwargs, given.endswith("_") and not given.endswith("__"), masks)
        if name in _COMPARISONS and isinstance(out, Tensor):
            self._margins[out] = _COMPARISONS[name] * (args[0] - args[1])
        elif masks and isinstance(out, Tensor) and not out.is_floating_point():
            # What becomes of a comparison; the margin is known where it is only turned around.
            turned = name in ("invert", "logical_not") and self._margins[masks[0]] is not None
            self._margins[out] = -self._margins[masks[0]] if turned else None
        return out

    def _constant(self, tensor: Tensor) -> bool:
        return id(tensor) in self._weights or tensor in self._constants

    def called(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inplace: bool, masks: list[Tensor]
    ) -> Any:
        """What a call gives; `name` is that of the function without underscores."""
        raise NotImplementedError


class _Softened(_Traced):
    """Puts smooth functions in the place of those with kinks.

    With a number of `rows` beta is in units of 1 / the standard deviation of what a function is applied to, row by row.
    """

    def __init__(self, model: nn.Module, beta: float, pooling: bool, rows: int | None = None) -> None:
        super().__init__(model)
        self.beta, self.rows = beta, rows
        self.forms = {**FORMS, **POOLS} if pooling else FORMS

    def sharpness(self, *given: Any) -> Beta:
        """Beta in units of what is given, the first of which says how it spreads."""
        first, ndim = given[0], max([v.ndim for v in given if isinstance(v, Tensor)], default=0)
        if self.rows is None or not 1 < first.ndim == ndim or len(first) != self.rows:
            return self.beta
        with torch.no_grad(), torch._C.DisableTorchFunction():  # a mode around this one is not to see it
            flat = first.detach().flatten(1)
            size = flat.std(1, correction=0)
            size = torch.where(size > 0, size, flat.abs().amax(1))
            size = torch.where(size > 0, size, 1.0)
        return self.beta / size.view(-1, *[1] * (first.ndim - 1))

    def called(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inplace: bool, masks: list[Tensor]
    ) -> Any:
        if masks:
            soft = self._gated(name, func, args, kwargs)
        else:
            soft, inplace = _form(self.forms, name, self.sharpness, args, kwargs, inplace)
        if soft is NotImplemented:
            return func(*args, **kwargs)
        # An in-place function changes the tensor it is given; the caller may keep using that one.
        return args[0].copy_(soft) if inplace and args else kwargs["input"].copy_(soft) if inplace else soft

    def _gated(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call with a comparison as a sigmoid of its margin, where it picks or multiplies."""

        def gate(mask: Any) -> Any:
            margin = self._margins[mask] if isinstance(mask, Tensor) and mask in self._margins else None
            return mask if margin is None else torch.sigmoid(self.sharpness(margin) * margin)

        if kwargs and name != "to":
            return NotImplemented
        if name in ("mul", "multiply"):
            left, right = (gate(v) for v in args)
            return left * right
        if name == "where" and len(args) == 3 and gate(args[0]) is not args[0]:
            open_, (left, right) = gate(args[0]), args[1:]
            return open_ * left + (1 - open_) * right
        if name == "masked_fill" and gate(args[1]) is not args[1] and bool(torch.isfinite(torch.as_tensor(args[2]))):
            return gate(args[1]) * args[2] + (1 - gate(args[1])) * args[0]
        if name in _CASTS and gate(args[0]) is not args[0]:
            with torch._C.DisableTorchFunction():
                cast = func(*args, **kwargs)
            return gate(args[0]).to(cast) if cast.is_floating_point() else NotImplemented
        return NotImplemented


class Kinks(_Traced):
    """Notes which functions with kinks are called, and whether `smooth` has a form for each; and whether maxima are.

    `where` names the part of the model that runs, and may be set while the mode is on.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.where: Callable[[], str] = lambda: ""
        self.found: dict[tuple[str, str], bool] = {}
        self.maxima = False

    def called(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inplace: bool, masks: list[Tensor]
    ) -> Any:
        if masks:
            known = name in _GATED and all(self._margins[mask] is not None for mask in masks)
            out = func(*args, **kwargs)
            if name == "setitem" or inplace or (isinstance(out, Tensor) and out.is_floating_point()):
                self.found[self.where(), f"{name} of a comparison"] = known
            return out
        if name in STEPS and any(t.requires_grad for t in _tensors(args)):
            self.found[self.where(), name] = False
        elif _form(FORMS, name, lambda *_: 1.0, args, kwargs, False)[0] is not NotImplemented:
            self.found[self.where(), name] = True
        else:
            soft = _form(POOLS, name, lambda *_: 1.0, args, kwargs, False)[0] if not self.maxima else NotImplemented
            self.maxima |= soft is not NotImplemented
        return func(*args, **kwargs)


def _form(
    forms: dict[str, Callable[..., Any]], name: str, beta: Callable[..., Beta], args: Any, kwargs: Any, inplace: bool
) -> tuple[Any, bool]:
    """What stands in for a call, or NotImplemented; and whether the call changes its input."""
    form = forms.get(name)
    first = args[0] if args else kwargs.get("input")
    if form is None or not isinstance(first, Tensor) or not first.is_floating_point():
        return NotImplemented, inplace
    kwargs = {_ALIASES.get(key, key): value for key, value in kwargs.items()}
    sharp = beta(first, *args[1:], *kwargs.values())
    bound = _signature(form).bind(sharp, *args, **kwargs)
    inplace |= bool(bound.arguments.get("inplace", False))
    if inplace:
        bound.arguments["input"] = first.clone()
    return form(*bound.args, **bound.kwargs), inplace


_signature = functools.cache(inspect.signature)
_ALIASES = {"axis": "dim", "keepdims": "keepdim"}  # of NumPy, which PyTorch takes too


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


class Smooth(nn.Module):
    """A model whose functions with kinks act as smooth ones; `.model` is the original, with the same weights."""

    same_inputs: ClassVar[bool] = True

    def __init__(self, model: nn.Module, beta: float, pooling: bool, relative: bool = False) -> None:
        super().__init__()
        self.model, self.beta, self.pooling, self.relative = model, beta, pooling, relative

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of the smoothed model."""
        rows = len(x) if self.relative else None
        with eagerly(), _Softened(self.model, self.beta, self.pooling, rows):
            return logits_of(self.model, x)


@public
def smooth(model: nn.Module, beta: Positive = 50.0, *, pooling: bool = True) -> Smooth:
    """The model with smooth functions in the place of those with kinks, sharing its parameters.

    A piecewise linear network has no second derivative. Rectifiers are sums of max(x, 0), and softplus(beta) stands in
    for that, which comes within log(2) / beta of it: ReLU, ReLU6, hard tanh, leaky ReLU, PReLU, RReLU, threshold, hard
    sigmoid, hard swish, shrinkage, ELU and SELU where their slope jumps, clamp, abs, maximum and minimum, as modules,
    functions, methods and in place. A comparison that picks or multiplies (`where(x > 0, a, b)`, `x * (x > 0)`) becomes
    the sigmoid of beta times its margin. What follows from weights alone is left as it is. A function that has no such
    form (sign, round, an assignment to x[x < 0]) keeps its kinks, and `require_curvature` names it.

    Args:
        model: maps inputs (N, *) to logits (N, K); untouched.
        beta: how sharp, in 1 / units of what the functions are applied to.
        pooling: take max pooling and maxima over dimensions as log-sum-exp(beta) too, which comes within log(k) / beta
            of the largest of k entries. Without, they choose an entry, and pass on the curvature of that one.

    Raises:
        UsageError: beta is not positive and finite.

    >>> smooth(nn.ReLU(), beta=1.0)(torch.zeros(1)).item() > 0.69
    True
    """
    return Smooth(model, float(beta), pooling)


@public
def has_rectifiers(model: nn.Module, x: Inputs) -> bool:
    """Whether the model calls a rectifier that `smooth` replaces, at the first of the inputs (N, *); one forward.

    Max pooling is none.

    >>> has_rectifiers(nn.ReLU(), torch.ones(1, 2)), has_rectifiers(nn.Tanh(), torch.ones(1, 2))
    (True, False)
    """
    return any(_kinks(model, x).found.values())


def _kinks(model: nn.Module, x: Tensor) -> Kinks:
    # With a gradient to follow: without one, fused layers hide what they call.
    watch = Kinks(model)
    with frozen(model) as model, eagerly(), torch.enable_grad(), watch:
        model(x[:1].detach().requires_grad_().clone())
    return watch


Lead = Callable[[float], nn.Module]
"""The model whose derivatives a search follows, by the share of its steps that lie behind it."""

_BLUNT, _SHARP = 2.0, 200.0


def lead_of(model: nn.Module, x: Tensor) -> Lead:
    """Models for a search to follow on inputs like x (N, *): the model itself where it has no kinks; one forward.

    Otherwise smooth ones that come ever nearer to it, rectifiers and maxima with a beta from 2 to 200 over the standard
    deviation of what each is applied to: a derivative sees only the kinks that lie within about 1 / beta, few for a
    sharp model, while a blunt one is another function. Neither the scale of the weights nor that of the inputs counts.

    >>> model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    >>> lead_of(model, torch.rand(2, 4))(0.5) is model
    True
    """
    kinks = _kinks(model, x)
    inner = model.model if isinstance(model, Smooth) else model
    if inner is model and not kinks.maxima and not any(kinks.found.values()):
        return lambda share: model
    return lambda share: Smooth(inner, _BLUNT * (_SHARP / _BLUNT) ** share, pooling=True, relative=True)
