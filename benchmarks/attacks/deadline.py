"""A limit on how long a contender may take."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from torch import Tensor, nn

from benchmarks.attacks.tasks import Contender

__all__ = ["deadline", "limited"]


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block once so many seconds have passed.

    Only where the system has alarms, and in the main thread; elsewhere the block takes as long as it takes.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def limited(contender: Contender, seconds: float) -> Contender:
    """The contender with a limit on each of its runs."""

    def run(model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None, seed: int) -> Tensor:
        with deadline(seconds):
            return contender.run(model, x, y, target, seed)

    return dataclasses.replace(contender, run=run)
