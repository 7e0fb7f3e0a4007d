"""The roof: commands put together, errors turned into one line and an exit code."""

from __future__ import annotations

import io
import sys
import traceback
from typing import Any

import typer

from steadygrad.cli import audit, demo, harden, listing, report, reproduce, train
from steadygrad.cli.common import command_line, rank_and_size, typed
from steadygrad.errors import Failure, UsageError

app = typer.Typer(
    name="steadygrad",
    help="Audit an image classifier, harden it, and show the result so that nobody is misled.",
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
# Typer turns Ctrl-C into this exit code, or into Abort, depending on its version, and brings its own
# copy of click since 0.29, so that its errors are found by what they derive from.
_INTERRUPTED = 130
_BadUsage: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("audit")(audit.audit)
app.command("harden")(harden.harden)
app.command("report")(report.report)
app.command("list")(listing.listing)
app.command("reproduce")(reproduce.reproduce)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", metavar="", help="Print the version and exit."),
) -> None:
    if version:
        from steadygrad import __version__

        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
    elif rank_and_size()[1] > 1 and context.invoked_subcommand != "train":
        _alone(context.invoked_subcommand)


def _alone(command: str) -> None:
    """Under `torchrun`, whose processes would each do all of the work, the first one does it, unless it trains."""
    rank, size = rank_and_size()
    if rank > 0:
        raise typer.Exit
    if command in ("demo", "harden", "reproduce"):
        raise UsageError(
            f"{command} trains and audits in one process, and here are {size}: run it without torchrun, or train with "
            "several (steadygrad train) and audit the result"
        )
    _say(f"{command} works in one process: the other {size - 1} of {size} end at once")


def main(arguments: list[str] | None = None, *, commands: typer.Typer = app, name: str = "steadygrad") -> None:
    """Run a command; exit code 0 done, 1 failed, 2 wrong usage, 3 below --fail-under. `--debug` shows the traceback.

    Args:
        arguments: without the name of the program; None for those of the process.
        commands: which commands there are.
        name: how the program is called, shown in help and errors.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        # Where the terminal or file cannot hold a sign such as ✓, a question mark stands for it.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    typed.set([*name.split(), *arguments])
    try:
        left: Any = commands(arguments, prog_name=name, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        left = _INTERRUPTED
    except _BadUsage as error:
        if rank_and_size()[0] == 0:
            error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    except UsageError as error:
        _leave(error, 2, arguments)
    except Exception as error:
        _leave(_named(error), 1, arguments)
    if left == _INTERRUPTED:
        if rank_and_size()[0] == 0:
            _say(f"interrupted; what is finished is kept. Continue with:\n  {command_line()}")
        sys.exit(1)


def _named(error: Exception) -> Exception:
    """The error in words for a user; defects of the library are called that."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, OSError):
        return Failure(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    text = f"{type(error).__name__}: {error}"
    if any(sign in text for sign in ("MemoryError", "OutOfMemoryError", "can't allocate memory")):
        return Failure("out of memory: use a smaller batch (audit --batch-size 50, train --set batch_size=32)")
    return Failure(f"{text} (not foreseen: please run again with --debug and report what it prints)")


def _leave(error: Exception, code: int, arguments: list[str]) -> None:
    rank, _ = rank_and_size()
    if "--debug" in arguments:
        traceback.print_exc()
    if rank == 0 or code != 2:  # what is wrong with the command is wrong for all: the first one says it
        _say(f"process {rank}: {error}" if rank else str(error))
    sys.exit(code)


def _say(text: str) -> None:
    print(f"steadygrad: {text}", file=sys.stderr)
