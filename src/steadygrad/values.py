"""A value for a type: taken as it is where it can only mean one thing, else refused by name with what is expected."""

from __future__ import annotations

import collections.abc
import functools
import math
import os
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from steadygrad.errors import UsageError, unknown_name


class Limit(NamedTuple):
    """What a value must be, in the type of its field: the words of the error, and whether a value is so.

    A function that uses names of its module must be in a type that the module names, as `Positive` is here.
    """

    words: str
    holds: Callable[[Any], bool]


class Reader(NamedTuple):
    """How a value is taken that is more than its type, in the type of its parameter: what it is, and by which function.

    The function takes the name of the argument and what came.
    """

    words: str
    read: Callable[[str, Any], Any]


Positive = Annotated[float, Limit("positive and finite", lambda value: 0 < value < math.inf)]
NotNegative = Annotated[float, Limit("at least 0 and finite", lambda value: 0 <= value < math.inf)]
Finite = Annotated[float, Limit("a finite number", lambda value: math.isfinite(value))]
Count = Annotated[int, Limit("at least 1", lambda value: value >= 1)]
Whole = Annotated[int, Limit("at least 0", lambda value: value >= 0)]
BelowOne = Annotated[float, Limit("within [0, 1)", lambda value: 0 <= value < 1)]
Fraction = Annotated[float, Limit("within (0, 1)", lambda value: 0 < value < 1)]
Share = Annotated[float, Limit("a share within (0, 1]", lambda value: 0 < value <= 1)]
Part = Annotated[float, Limit("within [0, 1]", lambda value: 0 <= value <= 1)]
Seed = Annotated[int, Limit("a seed within 0..2^63 - 1", lambda value: 0 <= value < 2**63)]


def take(name: str, value: Any, hint: Any) -> Any:
    """The value for a type, converted where it can only mean one thing; any other is refused by the argument's name.

    Numbers may be NumPy or tensor scalars or texts such as 8/255, tensors may be arrays or lists, and tuples
    lists. A type that says nothing takes everything.

    Raises:
        UsageError: what came, and what is expected.

    >>> take("eps", "8/255", float) * 255, take("y", [0, 1], Tensor)
    (8.0, tensor([0, 1]))
    >>> take("steps", 1.5, Count)
    Traceback (most recent call last):
    steadygrad.errors.UsageError: steps must be a whole number, got 1.5
    """
    origin, parts = get_origin(hint), get_args(hint)
    if isinstance(value, Tensor) and (value.layout != torch.strided or value.is_quantized or value.is_nested):
        raise UsageError(f"{name} must be a dense tensor, got {value.dtype} of layout {value.layout}: x.to_dense()")
    if isinstance(value, complex) or (isinstance(value, Tensor) and value.is_complex()):
        raise UsageError(f"{name} must hold real numbers, got {shown(value)}")
    if origin is Annotated:
        extra = hint.__metadata__
        reader = next((part for part in extra if isinstance(part, Reader)), None)
        limits = [part for part in extra if isinstance(part, Limit)]
        # A limit refuses NaN too, in words that say more.
        read = reader.read if reader else _float if parts[0] is float and limits else None
        value = read(name, value) if read else take(name, value, parts[0])
        for limit in limits:
            if not limit.holds(value):
                raise UsageError(f"{name} must be {limit.words}, got {shown(value)}")
        return value
    if origin in (Union, types.UnionType):
        return _any_of(name, value, parts)
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in parts):
            raise unknown_name(name, value if isinstance(value, str) else shown(value), map(str, parts))
        return value
    if hint in _READERS:
        return _READERS[hint](name, value)
    kind = origin or hint
    if kind is collections.abc.Callable:
        if isinstance(value, type) or not callable(value):
            return refuse(name, value, hint)
        return value
    if kind is Any or kind is object or not isinstance(kind, type):
        return value
    if issubclass(kind, tuple | list) or kind is collections.abc.Sequence:
        return _items(name, value, hint, kind, parts)
    if isinstance(value, str) and kind is not str and issubclass(kind, collections.abc.Iterable):
        return refuse(name, value, hint)
    if not isinstance(value, kind):
        return refuse(name, value, hint)
    if isinstance(value, collections.abc.Mapping) and parts:
        return {take(f"a key of {name}", k, parts[0]): take(f"{name}[{k!r}]", v, parts[1]) for k, v in value.items()}
    return value


def check_settings(settings: Any, **known_as: str) -> None:
    """Take the fields of a frozen dataclass by their types (see `take`): its values, their choices and limits.

    Args:
        settings: the dataclass.
        known_as: what an error about a choice calls a field; its name if not given.

    >>> from steadygrad.defenses import TRADES
    >>> TRADES(eps=-0.1)
    Traceback (most recent call last):
    steadygrad.errors.UsageError: eps must be positive and finite, got -0.1
    """
    kind: Any = type(settings)
    for name, hint in _fields(kind).items():
        if get_origin(hint) is ClassVar:
            continue
        value = getattr(settings, name)
        taken = take(known_as.get(name, name) if get_origin(hint) is Literal else name, value, hint)
        if taken is not value:
            object.__setattr__(settings, name, taken)


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _any_of(name: str, value: Any, members: tuple[Any, ...]) -> Any:
    if value is None and type(None) in members:
        return None
    if Path in members and isinstance(value, str) and not value:
        raise UsageError(f"{name} must be a path, got ''")
    members = tuple(member for member in members if member is not type(None))
    # What is of one of the types already is not made into another: lazy images would be read as a tensor.
    for member in sorted(members, key=lambda member: not _is_one(value, member)):
        try:
            return take(name, value, member)
        except UsageError:
            if len(members) == 1:
                raise
    expected = " or ".join(dict.fromkeys(words(member) for member in members))
    raise UsageError(f"{name} must be {expected}, got {shown(value)}")


def _is_one(value: Any, hint: Any) -> bool:
    kind = get_origin(hint) or hint
    # A tensor of one number is a number where both may be given.
    return isinstance(kind, type) and kind is not Tensor and isinstance(value, kind)


def _items(name: str, value: Any, hint: Any, kind: type, parts: tuple[Any, ...]) -> Any:
    if isinstance(value, np.ndarray | Tensor) and value.ndim:
        value = value.tolist()
    if isinstance(value, str) and parts and parts[0] is str:
        raise UsageError(f"{name} must be {words(hint)}, got {shown(value)}: write ({value!r},)")
    if not isinstance(value, collections.abc.Sequence) or isinstance(value, str | bytes):
        if kind is tuple or kind is list or kind is collections.abc.Sequence:
            return refuse(name, value, hint)
        return value if isinstance(value, kind) else refuse(name, value, hint)
    if kind is not tuple:
        if not parts:
            return value
        made = [take(f"{name}[{i}]", item, parts[0]) for i, item in enumerate(value)]
        return tuple(made) if isinstance(value, tuple) else made
    if not parts:
        return tuple(value)
    if parts == (str, Ellipsis) and type(value) is tuple and set(map(type, value)) <= {str}:
        return value  # as a million names are, which take seconds one by one
    kinds = (parts[0],) * len(value) if parts[-1] is Ellipsis else parts
    if len(kinds) != len(value):
        return refuse(name, value, hint)
    return tuple(take(f"{name}[{i}]", item, part) for i, (item, part) in enumerate(zip(value, kinds)))


def refuse(name: str, value: Any, hint: Any) -> Any:
    """Refuse a value by its name, saying what the type takes and what came."""
    kind = get_origin(hint) or hint
    if isinstance(value, type) and isinstance(kind, type) and issubclass(value, kind):
        raise UsageError(f"{name} must be {words(hint)}, got the class {value.__name__}: make one, {value.__name__}()")
    raise UsageError(f"{name} must be {words(hint)}, got {shown(value)}")


EXAMPLES = {
    "Threat": "such as sg.linf(8/255)",
    "Module": "(torch.nn.Module or sg.Classifier)",
    "Classifier": "(wrap a module: sg.Classifier(module, classes=...))",
    "Dataset": "such as sg.data.load('digits') or sg.data.from_arrays(x, y)",
    "Attack": "such as sg.attacks.PGD()",
    "ExplanationAttack": "such as sg.attacks.IFIA()",
    "Attribution": "such as sg.attributions.Saliency()",
    "Defense": "such as sg.defenses.Plain()",
    "FitSettings": "such as sg.FitSettings(epochs=10)",
}
"""How to get what a parameter takes, by the name of its type."""


def words(hint: Any) -> str:
    """What a type takes, in words.

    >>> words(tuple[float, float]), words(Literal["a", "b"])
    ('2 values, each a number', "'a' or 'b'")
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        found = [part.words for part in hint.__metadata__ if isinstance(part, Reader | Limit)]
        return found[0] if found and isinstance(hint.__metadata__[0], Reader) else words(parts[0])
    if origin in (Union, types.UnionType):
        return " or ".join("None" if part is type(None) else words(part) for part in parts)
    if origin is Literal:
        return " or ".join(", ".join(map(repr, parts)).rsplit(", ", 1))
    if hint in _WORDS:
        return _WORDS[hint]
    kind = origin or hint
    if kind is collections.abc.Callable:
        return "a function"
    if kind is tuple and parts and parts[-1] is not Ellipsis:
        return f"{len(parts)} values, each {words(parts[0])}"
    if isinstance(kind, type) and issubclass(kind, tuple | list | collections.abc.Sequence):
        return f"a list, each item {words(parts[0])}" if parts else "a list"
    if isinstance(kind, type) and issubclass(kind, collections.abc.Mapping):
        return "a mapping (dict)"
    name = getattr(kind, "__name__", "value")
    title = {"Module": "model", "Iterable": "list"}.get(name, name)
    return f"{'an' if title[0] in 'AEIOUaeiou' else 'a'} {title} {EXAMPLES.get(name, '')}".strip()


def shown(value: Any) -> str:
    """A value as an error shows it: short, with its type where that says more.

    >>> shown(torch.zeros(2, 3)), shown("ce"), shown(object).startswith("the class")
    ('torch.float32 of shape (2, 3)', "'ce'", True)
    """
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}" if value.ndim or value.is_complex() else repr(value)
    if isinstance(value, np.ndarray):
        return f"a NumPy array of {value.dtype} and shape {value.shape}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, bool | int | float | complex | np.generic | os.PathLike | torch.device):
        return repr(value)
    if isinstance(value, str | bytes | list | tuple | dict):
        text = repr(value)
        text = text if len(text) <= 80 else f"{text[:77]}..."
        return text if isinstance(value, str) else f"{text} ({type(value).__name__})"
    return f"an object of type {type(value).__name__}"


def fraction(text: str) -> float | None:
    """The number that a text such as 0.1 or 8/255 says; None for any other text.

    >>> fraction("8/255") * 255, fraction("ce")
    (8.0, None)
    """
    found = re.fullmatch(r"\s*(-?[\d.]+(?:e-?\d+)?)\s*(?:/\s*([\d.]+)\s*)?", text, re.IGNORECASE)
    try:
        return float(found[1]) / float(found[2] or 1) if found else None
    except (ValueError, ZeroDivisionError):
        return None


def scalar(value: Any) -> Any:
    """The Python number of a NumPy or tensor scalar; anything else as it is."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray | Tensor) and value.ndim == 0):
        return value.item()
    return value


def _float(name: str, value: Any) -> float:
    number = fraction(value) if isinstance(value, str) else scalar(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return float(refuse(name, value, float))
    return float(number) if abs(number) < 2**1000 or number != number else math.copysign(math.inf, number)


def _finite_float(name: str, value: Any) -> float:
    number = _float(name, value)
    return number if number == number else float(refuse(name, value, float))


def _int(name: str, value: Any) -> int:
    number = scalar(value)
    whole = isinstance(number, int) or (isinstance(number, float) and number.is_integer())
    fits = whole and not isinstance(number, bool) and abs(number) < 2**63
    return int(number) if fits else int(refuse(name, value, int))


def _bool(name: str, value: Any) -> bool:
    found = scalar(value)
    return found if isinstance(found, bool) else bool(refuse(name, value, bool))


def _path(name: str, value: Any) -> Path:
    return Path(value) if isinstance(value, str | os.PathLike) else Path(refuse(name, value, Path))


def _generator(name: str, value: Any) -> torch.Generator:
    if isinstance(value, torch.Generator):
        return value
    seed = scalar(value)
    if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63:
        return torch.Generator().manual_seed(seed)
    refused: torch.Generator = refuse(name, value, torch.Generator)
    return refused


def tensor(name: str, value: Any) -> Tensor:
    """A tensor from a tensor, an array, or lists of numbers, which share no memory with it afterwards.

    >>> tensor("y", [0, 1])
    tensor([0, 1])
    """
    if isinstance(value, Tensor):
        found = value
    elif value is None or isinstance(value, str | bytes | dict | set | type | bool | complex):
        found = refuse(name, value, Tensor)
    else:
        try:
            if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
                found = torch.stack(list(value))
            elif isinstance(value, list | tuple) and not _holds_texts(value):
                found = torch.tensor(value)
            else:
                found = _of_array(name, np.asarray(value))
        except UsageError:
            raise
        except (TypeError, ValueError, RuntimeError, OverflowError):
            found = refuse(name, value, Tensor)
    if found.is_complex():
        found = refuse(name, value, Tensor)
    # Made in inference mode, it can carry no gradient; a copy can.
    return found.clone() if found.is_inference() and not torch.is_inference_mode_enabled() else found


def _holds_texts(values: Any) -> bool:
    return len(values) > 0 and isinstance(values[0], str)


def _of_array(name: str, array: Any) -> Tensor:
    if array.ndim and _holds_texts(array):
        raise UsageError(
            f"{name} must hold numbers, got texts such as {str(array[0])!r}: classes, y = np.unique(names, "
            "return_inverse=True) makes them of names"
        )
    if array.dtype == np.uint64 and array.size and array.max() > 2**63 - 1:
        raise UsageError(f"{name} holds {array.max()}, which is larger than a 64-bit integer")
    # torch lacks large unsigned, big-endian and extended types.
    unsigned = array.dtype.kind == "u" and array.dtype.itemsize > 1
    long = array.dtype.kind == "f" and array.dtype.itemsize > 8
    kind = np.int64 if unsigned else np.float64 if long else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, kind, order="C"))


_READERS: dict[Any, Callable[[str, Any], Any]] = {
    float: _finite_float,
    int: _int,
    bool: _bool,
    Path: _path,
    Tensor: tensor,
    torch.Generator: _generator,
}
_WORDS: dict[Any, str] = {
    float: "a number",
    int: "a whole number",
    bool: "True or False",
    str: "a text",
    Path: "a path",
    Tensor: "a tensor of real numbers (an array or a list is one too)",
    torch.Generator: "a torch.Generator or a seed",
    type(None): "None",
}
