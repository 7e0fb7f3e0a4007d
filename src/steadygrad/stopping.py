"""Being stopped by a signal: Ctrl-C, or what asks a process to end; work that counts in steps ends between two."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

_ASKING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(KeyboardInterrupt):
    """A signal asked a command to end. Python would die of SIGINT after a plain one that went through `exec`."""


@dataclass
class Stop:
    """The first signal that came, or 0."""

    number: int = 0


_stop = Stop()
"""Of the command that runs. Signals reach a process and no context of it."""


def _end(number: int, frame: FrameType | None) -> None:
    _stop.number = _stop.number or number
    raise Stopped


@contextlib.contextmanager
def ends_in_order() -> Iterator[Stop]:
    """Within the block, which is a whole command, each signal that asks to end raises KeyboardInterrupt and is noted.

    A signal that is ignored, or has a handler of its own, stays so, and the library alone changes none.
    """
    usual = (signal.SIG_DFL, signal.default_int_handler)
    if _end not in map(signal.getsignal, _ASKING):  # else this is a part of a command
        _stop.number = 0
    main = threading.current_thread() is threading.main_thread()
    before = {n: handler for n in _ASKING if main and (handler := signal.getsignal(n)) in usual}
    try:
        for number in before:
            signal.signal(number, _end)
        yield _stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def between_steps() -> Iterator[Stop]:
    """Within the block a first signal is only noted, for the block to look at; a second one ends it at once.

    Where one was noted, the end of the block raises KeyboardInterrupt. Outside of commands this is so for Ctrl-C alone,
    and a handler that the caller has set stays.
    """
    stop, mine = Stop(), (_end, signal.default_int_handler)
    main = threading.current_thread() is threading.main_thread()
    before = {n: handler for n in _ASKING if main and (handler := signal.getsignal(n)) in mine}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        restore()
        stop.number = number
        if before[number] is _end:
            _stop.number = _stop.number or number

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
    if stop.number:
        raise Stopped
