"""What the commands share: options, device, output and the command line as it was typed."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from steadygrad.cli import known
from steadygrad.errors import UsageError
from steadygrad.progress import shown
from steadygrad.readable import readable
from steadygrad.run_folders import OtherRun

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object on stdout.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, metavar="N", help="Seed of everything random.")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|mps",
        help="Where to compute; cuda:1 for the second GPU.",
        autocompletion=known.completing(["auto", "cpu", "cuda", "mps"]),
    ),
]
Data = Annotated[
    str, typer.Option("--data", help="Data by name, hub:owner/name or path.", autocompletion=known.completing("data"))
]
Quiet = Annotated[bool, typer.Option("--quiet", metavar="", help="Show no progress, only what is found.")]
Debug = Annotated[bool, typer.Option("--debug", metavar="", help="Show the traceback of an error.")]

typed: ContextVar[list[str] | None] = ContextVar("typed", default=None)
"""The command that is running, with the name of the program; None means the arguments of the process."""


def rank_and_size() -> tuple[int, int]:
    """Which of how many processes this is, under `torchrun` and its like."""
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    return (int(rank), int(size)) if rank.isdecimal() and size.isdecimal() else (0, 1)


def alone(command: str) -> None:
    """Under `torchrun`, whose processes would each do all of the work of a command, let the first one do it."""
    rank, size = rank_and_size()
    if size == 1:
        return
    if rank > 0:
        raise typer.Exit
    if command in ("demo", "harden", "reproduce"):
        raise UsageError(
            f"{command} trains and audits in one process, and here are {size}: run it without torchrun, or train with "
            "several (steadygrad train) and audit the result"
        )
    say(f"steadygrad: {command} works in one process: the other {size - 1} of {size} end at once", file=sys.stderr)


def progress(quiet: bool) -> contextlib.AbstractContextManager[None]:
    """Within the block progress is shown, by one process, where it is wanted."""
    return shown(not quiet and rank_and_size()[0] == 0)


def pick_device(name: str) -> str:
    """The device to compute on; "auto" takes CUDA, else MPS, else the CPU.

    Of several GPUs each process that `torchrun` has started takes its own.

    Raises:
        UsageError: a device that is not there.
    """
    import torch

    from steadygrad.training.processes import resolve_device

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    local = os.environ.get("LOCAL_RANK", "")
    if name == "cuda" and rank_and_size()[1] > 1 and local.isdecimal():
        name = f"cuda:{int(local) % max(1, torch.cuda.device_count())}"
    return str(resolve_device(name))


Weights = Annotated[
    list[str] | None,
    typer.Option("--weights", help="Safetensors file or run folder with the weights; once for each model."),
]
Trust = Annotated[
    bool, typer.Option("--trust", metavar="", help="Import the code that a run folder says its model is made by.")
]


def out_option(usual: str) -> Any:
    """The option `--out`; None stands for the usual folder, see `in_folder`."""
    help_ = "Run folder; an interrupted run continues there."
    return typer.Option("--out", help=help_, show_default=f"{usual}, {usual}-2, ...")


def in_folder(out: Path | None, usual: str, work: Callable[[Path], T]) -> tuple[T, Path]:
    """What the work gives in the folder `out`, or else in the usual one; and the folder.

    Where the usual folder holds a run of another configuration, the next is tried: `usual-2`, `usual-3`, ...
    """
    number, folder = 1, out or Path(usual)
    while True:
        try:
            return work(folder), folder
        except OtherRun:
            # Processes that train together must agree on the folder, and only one of them looks into it.
            if out is not None or rank_and_size()[1] > 1:
                raise
            number, folder = number + 1, Path(f"{usual}-{number + 1}")


def emit(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value, allow_nan=False))


def command_line() -> str:
    """The command as a line that can be pasted into a shell."""
    return " ".join(map(_quoted, typed.get() or ["steadygrad", *sys.argv[1:]]))


def _quoted(word: str) -> str:
    if readable(word) == word:
        return shlex.quote(word)
    plain = (chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in os.fsencode(word))
    return f"$'{''.join(plain)}'"


def say(text: object, **more: Any) -> None:
    """Print what is found, whatever names are in it."""
    print(readable(str(text), lines=True), **more)
