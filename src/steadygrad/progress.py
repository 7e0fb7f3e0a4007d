"""Progress of long work: silent in the library, a bar with the time left in the commands."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Advance = Callable[..., None]
"""`advance(steps=1, note="")`: this much more is done."""

Opener = Callable[[str, int], "contextlib.AbstractContextManager[Advance]"]


@contextlib.contextmanager
def _silent(description: str, total: int) -> Iterator[Advance]:
    yield lambda steps=1, note="": None


_opener: ContextVar[Opener] = ContextVar("opener", default=_silent)


@contextlib.contextmanager
def task(description: str, total: int) -> Iterator[Advance]:
    """Announce a piece of work of `total` steps; the block calls the yielded function as it goes on.

    >>> with task("attack", 3) as advance:
    ...     advance(1, note="2 left")
    """
    with _opener.get()(description, total) as advance:
        yield advance


def _log(text: str) -> None:
    logging.getLogger("steadygrad").warning(text)


_sayer: ContextVar[tuple[Callable[[str], None], set[str]]] = ContextVar("sayer", default=(_log, set()))


def say(text: str) -> None:
    """Tell people, once, what was chosen for them: a line on stderr in the commands, a log entry in the library."""
    sayer, said = _sayer.get()
    if text not in said:
        said.add(text)
        sayer(text)


@contextlib.contextmanager
def shown(enabled: bool = True) -> Iterator[None]:
    """Within the block, tasks draw bars on stderr: live on a terminal, one line at the end elsewhere."""
    if not enabled:
        yield
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )

    @contextlib.contextmanager
    def opener(description: str, total: int) -> Iterator[Advance]:
        bar = bars.add_task(description, total=total, note="")
        last = ""

        def advance(steps: int = 1, note: str = "") -> None:
            nonlocal last
            last = note or last
            bars.update(bar, advance=steps, note=last)

        yield advance
        bars.remove_task(bar)
        bars.console.print(f"[green]✓[/] {description} [dim]{last}[/]", highlight=False)

    token = _opener.set(opener)
    sayer = _sayer.set((lambda text: bars.console.print(f"[yellow]![/] {escape(text)}", highlight=False), set()))
    try:
        with bars:
            yield
    finally:
        _opener.reset(token)
        _sayer.reset(sayer)
