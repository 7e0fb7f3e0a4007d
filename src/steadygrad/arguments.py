"""The public boundary: what people bring is taken as it is, or refused by the name of its argument.

`public` takes the arguments of a function by their types. Inputs and labels may be arrays, lists or tensors of any
integer or floating type, on any device; they come to the function as tensors where the model is. What the caller's
code raises is told as such, with the inputs that it was given.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from steadygrad.errors import Failure, UsageError, out_of_memory, unknown_name
from steadygrad.precision import moved
from steadygrad.values import Reader, shown, take, tensor

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=type)

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_batch(name: str, found: Tensor) -> Tensor:
    """Refuse what is not a floating-point batch of inputs (N, *), with at least one."""
    got = f"{found.dtype} of shape {tuple(found.shape)}"
    if found.dtype not in _FLOATS:
        scale = ": divide pixels by 255 where the bounds are (0, 1)" if found.dtype == torch.uint8 else ""
        raise UsageError(f"{name} must be a floating-point batch of inputs (N, *), got {got}{scale}")
    if found.ndim < 2:
        raise UsageError(f"{name} must be a batch of inputs (N, *), got {got}: a single input is x[None]")
    if found.numel() == 0:
        raise UsageError(f"{name}: the batch of inputs is empty, got shape {tuple(found.shape)}")
    return found


def check_labels(name: str, found: Tensor, count: int | None = None) -> None:
    """Refuse what is not integer labels, one for each of `count` inputs."""
    whole = not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)
    if not whole or (count is not None and found.shape != (count,)):
        got = f"{found.dtype} of shape {tuple(found.shape)}"
        raise UsageError(f"{name} must hold integer labels of shape ({'N' if count is None else count},), got {got}")


def _inputs(name: str, value: Any) -> Tensor:
    found = tensor(name, value)
    if isinstance(value, list | tuple) and not (found.is_floating_point() or found.is_complex()):
        found = found.to(torch.get_default_dtype())  # a list of whole numbers says nothing about their type
    return check_batch(name, found)


def _integers(name: str, value: Any) -> Tensor:
    found = tensor(name, value)
    check_labels(name, found)
    return found.to(torch.int64)


def _list_of_integers(name: str, value: Any) -> Tensor:
    found = tensor(name, value)
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool or found.ndim != 1:
        raise UsageError(f"{name} must be integers (N,), got {found.dtype} of shape {tuple(found.shape)}")
    return found.to(torch.int64)


_INPUTS = Reader("a batch of inputs (N, *)", _inputs)
_LABELS = Reader("integer labels (N,)", _integers)
_CLASSES = Reader("a class, or integer classes (N,)", _integers)

Inputs = Annotated[Tensor, _INPUTS]
"""A batch (N, *) of inputs; taken as a tensor, an array or lists of numbers."""
Labels = Annotated[Tensor, _LABELS]
"""Integer labels (N,) of the inputs."""
Classes = Annotated[Tensor, _CLASSES]
"""Integer classes (N,) of the inputs, or a single one for all of them."""

Integers = Annotated[Tensor, Reader("integers (N,)", _list_of_integers)]
"""Integers (N,), such as seeds and places."""


def public(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: take the arguments by the types of the parameters (`values.take`), and by those of this file.

    The decorated function gets tensors on the device of the model, labels as int64 of one
    per input, and never an argument of another type than its parameter has. Its own defaults are not looked at.
    Within `torch.inference_mode` it runs outside of it, since derivatives are asked for.

    Raises:
        UsageError: an argument that does not fit, an unknown or a missing one; the caller's model or function fails.
    """
    signature = inspect.signature(function)
    plan: list[_Parameter] = []

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        if not plan:
            plan.extend(_plan(function, signature))
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else contextlib.nullcontext():
            bound = _bound(function, signature, args, kwargs)
            for name, hint in plan:
                if name in bound.arguments:
                    bound.arguments[name] = take(name, bound.arguments[name], hint)
            _together(bound.arguments, plan)
            try:
                return function(*bound.args, **bound.kwargs)
            except _ORDINARY as error:
                refusal = of_the_callers(error, bound.arguments)
                if refusal is None:
                    raise
                raise refusal from error

    return checked


def arithmetic(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator, as `public`, for calculations with arrays: where one fails, its arguments do not fit each other."""
    careful = public(function)

    @functools.wraps(function)
    def told(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return careful(*args, **kwargs)
        except (UsageError, Failure):
            raise
        except _ORDINARY as error:
            given = inspect.signature(function).bind(*args, **kwargs).arguments
            what = ", ".join(f"{name}: {shown(value)}" for name, value in given.items() if name != "self")
            reason = f"{type(error).__name__}: {error}"
            text = f"the arguments of {function.__name__} do not fit each other ({what}): {reason}"
            raise UsageError(text) from error

    return told


def quick(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator, as `arithmetic`, for what loops call at every step: looks at the arguments where a call fails."""
    careful = arithmetic(function)

    @functools.wraps(function)
    def tried(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except _ORDINARY as error:
            if isinstance(error, UsageError | Failure):
                raise
        return careful(*args, **kwargs)

    return tried


def named(kind: M) -> M:
    """Class decorator: unknown and missing arguments of the constructor are refused by name."""
    init = kind.__init__  # type: ignore[misc]
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        _bound(kind, signature, (self, *args), kwargs)
        init(self, *args, **kwargs)

    kind.__init__ = checked  # type: ignore[misc]
    return kind


def fitted(kind: M) -> M:
    """Class decorator: the constructor takes its arguments as an `arithmetic` function does."""
    kind.__init__ = arithmetic(kind.__init__)  # type: ignore[misc]
    return kind


_Parameter = tuple[str, Any]


def _plan(function: Callable[..., Any], signature: inspect.Signature) -> list[_Parameter]:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    hints = get_type_hints(function, include_extras=True)
    named_ = (p.name for p in signature.parameters.values() if p.kind not in variable)
    return [(name, hints[name]) for name in named_ if name in hints] or [("", Any)]


def _bound(
    function: Callable[..., Any], signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        name = function.__qualname__.removesuffix(".__call__").removesuffix(".__init__")
        known = [parameter for parameter in signature.parameters if parameter != "self"]
        unknown = [key for key in kwargs if key not in known]
        if unknown:
            raise unknown_name(f"argument of {name}", unknown[0], known) from None
        raise UsageError(f"{name}: {error}; its arguments are {', '.join(known)}") from None


def _readers(hint: Any) -> list[Reader]:
    """The readers in a type, also in the members of a union."""
    if get_origin(hint) in (Union, types.UnionType):
        return [reader for part in get_args(hint) for reader in _readers(part)]
    return [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Reader)]


def _together(arguments: dict[str, Any], plan: list[_Parameter]) -> None:
    """Bring the tensors of a call to where the model is, and the labels to one per input."""
    model = _model(arguments)
    home = None if model is None else _where(model)
    kinds = {name: _readers(hint) for name, hint in plan if isinstance(arguments.get(name), Tensor)}
    count = None
    for name, readers in kinds.items():
        value: Tensor = arguments[name]
        if _INPUTS in readers:
            value = arguments[name] = value if home is None else moved(value, home)
            count = len(value) if count is None else count
            where = value.device
        elif (_LABELS in readers or _CLASSES in readers) and count is not None:
            if value.ndim == 0 and (count == 1 or _CLASSES in readers):
                value = value.expand(count)
            check_labels(name, value, count)
            arguments[name] = moved(value, where)


def _model(arguments: Mapping[str, Any]) -> nn.Module | None:
    found = (value for name, value in arguments.items() if isinstance(value, nn.Module) and name != "self")
    return next(found, None)


def _where(model: nn.Module) -> torch.device | None:
    weights = next(itertools.chain(model.parameters(), model.buffers()), None)
    return None if weights is None or weights.is_meta else weights.device


_ORDINARY = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
_STANDARD = str(Path(contextlib.__file__).parent)
_PACKAGE, _TORCH = str(Path(__file__).parent), str(Path(torch.__file__).parent)


def of_the_callers(error: Exception, arguments: Mapping[str, Any]) -> UsageError | None:
    """What to say of an error that code of the caller raised, or the model's derivative; None for any other."""
    if isinstance(error, UsageError | Failure) or out_of_memory(error):
        return None
    for name, value in arguments.items():  # called with arguments that it does not take
        called = getattr(value, "__qualname__", None)
        if isinstance(error, TypeError) and called and str(error).startswith(f"{called}() "):
            return UsageError(f"{name} cannot be called as it is here: {error}")
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_PACKAGE) and not file.endswith("contextlib.py") and file != "<string>":
            break
        trace = trace.tb_next
    if trace is None:
        return None
    reason = f"{type(error).__name__}: {error}"
    model = _model(arguments)
    given = ", ".join(
        f"{name} of {value.dtype}, shape {tuple(value.shape)} on {value.device}"
        for name, value in arguments.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1
    )
    if file.startswith(str(Path(_TORCH, "autograd"))):
        name = "the function" if model is None else type(model).__name__
        return UsageError(
            f"{name} has no derivative of the order that is needed ({reason}): is there a detach, a no_grad, or an "
            "operation without a derivative in it?"
        )
    if file.startswith(str(Path(_TORCH, "nn", "modules"))):
        name = "the model" if model is None else type(model).__name__
        return UsageError(
            f"{name} cannot take {given or 'these inputs'}: {reason}; give inputs that it takes, or correct the model"
        )
    if not file.startswith((_TORCH, _STANDARD)) and "site-packages" not in file:
        function = trace.tb_frame.f_code.co_name
        return UsageError(f"{function} in {Path(file).name} failed at {given or 'what it was given'}: {reason}")
    return None
