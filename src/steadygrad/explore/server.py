"""The explorer of a run on its port, until it is stopped."""

from __future__ import annotations

from collections.abc import Callable

from steadygrad.explore.live import Live
from steadygrad.explore.opened import Opened


def run(opened: Callable[[], Opened], host: str, port: int, device: str | None, say: Callable[[str], None]) -> None:
    """Open a run and answer until Ctrl-C.

    Args:
        opened: opens it, which takes a while: the port is taken before.

    Raises:
        UsageError: the port is in use, or the run cannot be opened.
    """
    from steadygrad.explore.app import app_of
    from steadygrad.serving.port import address, bound, serve

    with bound(host, port) as taken:
        app = app_of(Live(opened(), device))
        serve(app, taken, lambda: say(f"explore: {address(taken)} (Ctrl-C ends it)"))
