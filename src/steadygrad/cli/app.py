"""The roof: commands put together, errors turned into one line and an exit code."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import typer

from steadygrad.cli import audit, demo, harden, listing, reproduce, train
from steadygrad.cli.common import command_line, typed
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


def main(arguments: list[str] | None = None, *, commands: typer.Typer = app, name: str = "steadygrad") -> None:
    """Run a command; exit code 0 done, 1 failed, 2 wrong usage. `--debug` shows the traceback.

    Args:
        arguments: without the name of the program; None for those of the process.
        commands: which commands there are.
        name: how the program is called, shown in help and errors.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    typed.set([*name.split(), *arguments])
    try:
        left: Any = commands(arguments, prog_name=name, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        left = _INTERRUPTED
    except _BadUsage as error:
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    except UsageError as error:
        _leave(error, 2, arguments)
    except Exception as error:
        _leave(_named(error), 1, arguments)
    if left == _INTERRUPTED:
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
    if "--debug" in arguments:
        traceback.print_exc()
    _say(str(error))
    sys.exit(code)


def _say(text: str) -> None:
    print(f"steadygrad: {text}", file=sys.stderr)
