"""The roof: commands put together, errors turned into one line and an exit code."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import Any

import typer

from steadygrad.cli import audit, demo, explore, harden, listing, report, reproduce, streams, study, train
from steadygrad.cli.allocation import keep_memory, leave_busy_cores
from steadygrad.cli.common import alone, command_line, rank_and_size, say, typed
from steadygrad.errors import Failure, UsageError
from steadygrad.stopping import Stop, ends_in_order

app = typer.Typer(
    name="steadygrad",
    help="Audit an image classifier, harden it, and show the result so that nobody is misled.",
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
# Typer turns Ctrl-C into this exit code, or into Abort, depending on its version, and brings its own
# copy of click since 0.29, so that its errors are found by what they derive from. Shells count 128 and the signal.
_INTERRUPTED = 130
_BadUsage: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("audit")(audit.audit)
app.command("harden")(harden.harden)
app.command("report")(report.report)
app.command("explore")(explore.explore)
app.command("list")(listing.listing)
app.command("reproduce")(reproduce.reproduce)
app.add_typer(study.app, name="study")


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
    elif context.invoked_subcommand not in ("train", "audit"):  # which know what to do with several
        alone(context.invoked_subcommand)


def main(arguments: list[str] | None = None, *, commands: typer.Typer = app, name: str = "steadygrad") -> None:
    """Run a command; exit codes as in docs/commands.md. `--debug` shows the traceback.

    Args:
        arguments: without the name of the program; None for those of the process.
        commands: which commands there are.
        name: how the program is called, shown in help and errors.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    typed.set([*name.split(), *arguments])
    keep_memory()
    leave_busy_cores()
    with streams.ready(), ends_in_order() as stop:
        _run(arguments, commands, name, stop)


def _run(arguments: list[str], commands: typer.Typer, name: str, stop: Stop) -> None:
    try:
        left: Any = commands(arguments, prog_name=name, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        left = _INTERRUPTED
    except BrokenPipeError:
        sys.exit(1)  # whoever read what is printed has gone
    except _BadUsage as error:
        if rank_and_size()[0] == 0:
            error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    except UsageError as error:
        _leave(error, 2, arguments)
    except Exception as error:
        named = _named(error)
        if not stop.number or named is not None:
            _leave(named or _unforeseen(error), 1, arguments)
        left = _INTERRUPTED  # it came while somebody else's code ran, which made another error of it
    if left == _INTERRUPTED:
        if rank_and_size()[0] == 0:
            _say(f"interrupted; what is finished is kept. Continue with:\n  {command_line()}")
        sys.exit(128 + stop.number if stop.number else _INTERRUPTED)


def _named(error: Exception) -> Exception | None:
    """An error that was foreseen, in words for a user."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, OSError):
        return Failure(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    if isinstance(error, UnicodeEncodeError) and error.encoding == "utf-8":
        held = error.object[max(0, error.start - 20) : error.end]
        return Failure(f"a path or name has bytes that are no UTF-8, after {held!r}: give it another one")
    text = f"{type(error).__name__}: {error}"
    if any(sign in text for sign in ("MemoryError", "OutOfMemoryError", "can't allocate memory")):
        return Failure("out of memory: take less at once (audit --memory 500MB, train --set batch_size=32)")
    return None


def _unforeseen(error: Exception) -> Failure:
    """A defect of the library is called that."""
    text = f"{type(error).__name__}: {error}"
    return Failure(f"{text} (not foreseen: please run again with --debug and report what it prints)")


def _leave(error: Exception, code: int, arguments: list[str]) -> None:
    rank, _ = rank_and_size()
    if "--debug" in arguments:
        traceback.print_exc()
    if rank == 0 or code != 2:  # what is wrong with the command is wrong for all: the first one says it
        _say(f"process {rank}: {error}" if rank else str(error))
    sys.exit(code)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # of a terminal, or a reader, that has gone
        say(f"steadygrad: {text}", file=sys.stderr)
