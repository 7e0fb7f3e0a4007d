"""The latest request wins: whoever asks again no longer wants what was asked before."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator

from torch import nn

from steadygrad.attacks.expectation import network_of

_PAGES = 1_000
_LOOK = 0.01
"""Seconds between two looks of a request that waits."""


class Superseded(BaseException):
    """Nobody wants the result any more. No error, so that nothing in between takes it for one."""


class Latest:
    """The number of the latest request of each open page; one request is worked on at a time.

    >>> latest = Latest()
    >>> first = latest.entered("a page", 1)
    >>> first(), latest.entered("a page", 2)(), first()
    (False, False, True)
    """

    def __init__(self) -> None:
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._lock, self._work = threading.Lock(), threading.Lock()

    def entered(self, page: str, turn: int) -> Callable[[], bool]:
        """Note a request; what is returned tells whether a later one of its page has come."""
        with self._lock:
            self._turns[page] = max(turn, self._turns.pop(page, turn))
            while len(self._turns) > _PAGES:
                self._turns.popitem(last=False)
        return lambda: self._turns.get(page, turn) > turn

    @contextlib.contextmanager
    def working(self, superseded: Callable[[], bool]) -> Iterator[None]:
        """Within the block no other request is worked on.

        Raises:
            Superseded: a later request came before it was this one's turn.
        """
        while not self._work.acquire(timeout=_LOOK):
            if superseded():
                raise Superseded
        try:
            if superseded():
                raise Superseded
            yield
        finally:
            self._work.release()


@contextlib.contextmanager
def ended(model: nn.Module, superseded: Callable[[], bool]) -> Iterator[None]:
    """Within the block each pass through a model looks first whether its result is still wanted.

    Raises:
        Superseded: it is not.
    """

    def look(*ignored: object) -> None:
        if superseded():
            raise Superseded

    handle = network_of(model)[0].register_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()
