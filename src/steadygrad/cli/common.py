"""What the commands share: options, device, output and the command line as it was typed."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any

import typer

from steadygrad import progress
from steadygrad.errors import UsageError

Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object on stdout.")]
LARGEST_SEED = 2**63 - 1


def within_seeds(value: int | None) -> int | None:
    """Refuse a seed that generators do not take."""
    if value is not None and not 0 <= value <= LARGEST_SEED:
        raise typer.BadParameter(f"a seed is a whole number from 0 to 2**63 - 1, got {value}")
    return value


Seed = Annotated[int, typer.Option("--seed", callback=within_seeds, metavar="N", help="Seed of everything random.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Debug = Annotated[bool, typer.Option("--debug", metavar="", help="Show the traceback of an error.")]


typed: ContextVar[list[str] | None] = ContextVar("typed", default=None)
"""The command that is running, with the name of the program; None means the arguments of the process."""


def number(name: str, text: str) -> float:
    """A positive number or a fraction such as 8/255."""
    from steadygrad.registry import parse_value

    value = parse_value(text)
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UsageError(f"{name} must be a positive number or a fraction such as 8/255, got {text!r}")
    return float(value)


def pick_device(name: str) -> str:
    """The device to compute on; "auto" takes an accelerator if there is one.

    Raises:
        UsageError: a device that is not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"there is no device {name!r}: give auto, cpu, cuda, cuda:1 or mps") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False):
        raise UsageError(f"device {name!r} is not available on this machine: use --device cpu")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise UsageError(f"there is no {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return name


@contextmanager
def shown() -> Iterator[None]:
    """Progress on stderr while the block runs."""
    with progress.shown():
        yield


def emit(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value, allow_nan=False))


def command_line() -> str:
    """The command as a line that can be pasted into a shell."""
    return shlex.join(typed.get() or ["steadygrad", *sys.argv[1:]])
