"""Progress of long work: silent in the library, a bar with the time left in the commands."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

from steadygrad.readable import readable

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
        shares, further = _whole.get()
        share = shares.get(description, 0.0) / max(total, 1)

        def both(steps: int = 1, note: str = "") -> None:
            advance(steps, note=note)
            further(steps * share)

        yield both if share else advance


_whole: ContextVar[tuple[Mapping[str, float], Callable[[float], None]]] = ContextVar(
    "whole", default=({}, lambda share: None)
)


@contextlib.contextmanager
def whole(description: str, shares: Mapping[str, float]) -> Iterator[None]:
    """Within the block, tasks are parts of one, of which each has the share that stands beside its description.

    Without shares there is no such task.
    """
    if not shares:
        yield
        return
    with task(description, math.ceil(sum(shares.values()))) as advance:
        token = _whole.set((shares, advance))
        try:
            yield
        finally:
            _whole.reset(token)


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Within the block, tasks are not shown."""
    token = _opener.set(_silent)
    try:
        yield
    finally:
        _opener.reset(token)


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
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    console = Console(file=sys.stderr)
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )

    @contextlib.contextmanager
    def opener(description: str, total: int) -> Iterator[Advance]:
        description = readable(description)
        bar = bars.add_task(description, total=total, note="")
        last = ""

        def advance(steps: int = 1, note: str = "") -> None:
            nonlocal last
            last = readable(note) or last
            bars.update(bar, advance=steps, note=last)

        yield advance
        bars.remove_task(bar)
        bars.console.print(Text.assemble(("✓", "green"), f" {description} ", (last, "dim")))

    token = _opener.set(opener)

    def told(text: str) -> None:
        bars.console.print(Text.assemble(("!", "yellow"), f" {readable(text, lines=True)}"))

    sayer = _sayer.set((told, set()))
    try:
        with bars:
            yield
    finally:
        _opener.reset(token)
        _sayer.reset(sayer)
