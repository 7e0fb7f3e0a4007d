"""Architectures by name: one row each, and `build`, which makes a classifier from a row."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from steadygrad.arguments import public
from steadygrad.classifier import Classifier
from steadygrad.errors import UsageError, one_of
from steadygrad.kinds import ClassNames
from steadygrad.turns import drawing
from steadygrad.values import Seed

Builder = Callable[..., nn.Module]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What is known about an architecture without building it.

    `builder(shape, classes, **settings)` makes the module; `smallest` is the least height and
    width of an image, 0 where inputs of any shape are flattened.
    """

    name: str
    builder: Builder
    summary: str
    reference: str
    input_shape: tuple[int, ...]
    smallest: int

    @property
    def settings(self) -> dict[str, Any]:
        """The default settings, by name: the keyword-only arguments of the builder."""
        parameters = inspect.signature(self.builder).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def complete(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """All settings, defaults filled in; unknown or ill-typed ones are refused by name."""
        values = self.settings
        for key, value in settings.items():
            if not values:
                raise UsageError(f"{self.name} has no settings, got {key!r}")
            one_of(f"setting of {self.name}", key, values)
            values[key] = _valid(self.name, key, value, values[key])
        return values

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse input shapes that the architecture cannot take, with the smallest that it can."""
        if not shape or min(shape) < 1:
            raise UsageError(f"input_shape must hold positive sizes such as {self.input_shape}, got {shape}")
        if self.smallest and (len(shape) != 3 or min(shape[1:]) < self.smallest):
            raise UsageError(
                f"{self.name} takes images (channels, height, width) of at least "
                f"{self.smallest} x {self.smallest} pixels, got {shape}"
            )


def _valid(name: str, key: str, value: Any, default: Any) -> Any:
    # The default says which kind of value a setting takes.
    if isinstance(default, tuple):
        expected, fits = "a list of positive integers", isinstance(value, (list, tuple)) and all(map(_is_count, value))
    elif isinstance(default, float):
        expected = "a number in [0, 1)"
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1
    else:
        expected, fits = "a positive integer", _is_count(value)
    if not fits:
        raise UsageError(f"setting {key!r} of {name} must be {expected}, got {value!r}")
    return tuple(value) if isinstance(default, tuple) else value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


ARCHITECTURES: dict[str, Architecture] = {}
"""The architectures by name, in order of registration."""


def architecture(
    name: str, *, summary: str, reference: str, input_shape: tuple[int, ...], smallest: int
) -> Callable[[Builder], Builder]:
    """Decorator: put a builder into `ARCHITECTURES`."""

    def add(builder: Builder) -> Builder:
        ARCHITECTURES[name] = Architecture(name, builder, summary, reference, input_shape, smallest)
        return builder

    return add


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights in this block follow from the seed; the global generators stay as they are."""
    with drawing(seed=seed), torch.device("cpu"):
        yield


@public
def build(
    name: str,
    input_shape: Sequence[int],
    classes: ClassNames,
    *,
    seed: Seed = 0,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    bounds: tuple[float, float] = (0.0, 1.0),
    **settings: Any,
) -> Classifier:
    """An untrained classifier of a registered architecture.

    Args:
        name: a name of `ARCHITECTURES`.
        input_shape: of one sample: (channels, height, width), or anything for `mlp`.
        classes: class names, or their number.
        seed: of the initial weights; the global random state is neither used nor changed.
        mean: subtracted from the inputs, a number or one per channel.
        std: divides them after that, likewise.
        bounds: smallest and largest value of an input.
        settings: of the architecture, see `ARCHITECTURES[name].settings`.

    Raises:
        UsageError: unknown name or setting, a value out of range, an input that is too small.

    >>> model = build("lenet", (1, 28, 28), 10)
    >>> model(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    one_of("architecture", name, ARCHITECTURES)
    row = ARCHITECTURES[name]
    shape = tuple(int(s) for s in input_shape)
    count = classes if isinstance(classes, int) else len(classes)
    if count < 2:
        raise UsageError(f"classes must be a number from 2 to 1,000,000, or a list of names, got {classes!r}")
    row.check(shape)
    values = row.complete(settings)
    with seeded(seed):
        module = row.builder(shape, count, **values)
    return Classifier(
        module,
        mean=mean,
        std=std,
        bounds=bounds,
        classes=classes,
        input_shape=shape,
        architecture={"name": name, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}},
    )
