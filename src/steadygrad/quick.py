"""Quicker ways to run a model, in searches of attacks and not in their verdicts: in a narrower type, or compiled."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from steadygrad.calling import Called
from steadygrad.errors import Failure, UsageError, out_of_memory

Precision = Literal["float32", "tf32", "bfloat16"]
T = TypeVar("T")


@dataclass(eq=False)
class Way:
    """How a search runs a model: its forward, and with it the gradient of its inputs, in a type.

    Args:
        precision: in which matrices are multiplied and convolutions made.
        channels_last: whether images come with their channels last in memory.

    >>> Way("bfloat16").run(nn.Linear(2, 3), torch.zeros(4, 2)).dtype
    torch.bfloat16
    """

    precision: Precision = "float32"
    channels_last: bool = False
    _compiled: nn.Module | None = field(default=None, init=False, repr=False)
    _subject: nn.Module | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # What was compiled stays in its process.
        return {**vars(self), "_compiled": None, "_subject": None}

    def compile(self, model: nn.Module) -> None:
        """Have a model run compiled from now on; it is itself left as it was."""
        # In a wrapper of its own, which gets an attribute that says so.
        compiled: Any = torch.compile(Called(_bare(model)), dynamic=True)
        self._subject, self._compiled = _bare(model), compiled

    def as_written(self) -> None:
        """Have no model run compiled."""
        self._subject = self._compiled = None

    def run(self, model: nn.Module, x: Tensor) -> Tensor:
        """What a model says of inputs (N, *)."""
        if self.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        run: nn.Module = self._compiled if self._compiled is not None and _bare(model) is self._subject else model
        if self.precision != "bfloat16":
            logits: Tensor = run(x)
            return logits
        with torch.autocast(x.device.type, torch.bfloat16):
            narrow: Tensor = run(x)
            return narrow

    @contextlib.contextmanager
    def searching(self) -> Iterator[None]:
        """Within the block, which makes forwards and backwards, the type is taken on a CUDA device too."""
        if self.precision != "tf32":
            yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)

    def guarded(self, work: Callable[[], T]) -> T:
        """What a piece of work gives that runs a model; again, as the model is written, if it fails compiled."""
        try:
            with self.searching():
                return work()
        except Exception as error:
            if self._compiled is None or out_of_memory(error) or isinstance(error, UsageError | Failure):
                raise
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        logging.getLogger("steadygrad").warning("a compiled model fails and is run as it is written: %s", reason)
        self.as_written()
        with self.searching():
            return work()


USUAL = Way()
"""In float32, as the model is written."""
_ways: ContextVar[Sequence[tuple[nn.Module, Way]]] = ContextVar("ways", default=())


@contextlib.contextmanager
def taking(ways: Sequence[tuple[nn.Module, Way]]) -> Iterator[None]:
    """Within the block searches run each of these models in its way."""
    token = _ways.set(ways)
    try:
        yield
    finally:
        _ways.reset(token)


def way_of(model: nn.Module) -> Way:
    """How a search runs a model, which may be wrapped so that its inputs stay as they are."""
    inside: Any = model
    while True:
        for known, way in _ways.get():
            if known is inside:
                return way
        if not getattr(inside, "same_inputs", False):
            return USUAL
        inside = inside.model


def _bare(model: nn.Module) -> nn.Module:
    return model.model if isinstance(model, Called) else model
