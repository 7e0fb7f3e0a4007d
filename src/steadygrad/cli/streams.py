"""Where a command writes: whatever it is, a terminal, a file or a pipe, or closed, the work does not fail by it."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def ready() -> Iterator[None]:
    """Within the block, which is a whole command, streams take any text, and what is closed takes all and keeps none.

    Where a terminal or file cannot hold a sign such as ✓, a question mark stands for it.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            # At its number, which the next file that is opened would get otherwise, and with it what others print.
            _to_nowhere(number)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    for stream in streams:
        stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        for stream in streams:
            try:
                stream.flush()
            except OSError:  # the reader of a pipe has gone; Python would try again at its end, and say so
                with contextlib.suppress(OSError, ValueError):
                    _to_nowhere(stream.fileno())


def _to_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
