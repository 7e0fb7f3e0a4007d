"""A server on its port: taken before anything is said, and left in order."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from fastapi import FastAPI

from steadygrad.errors import UsageError


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address, for `serve`; port 0 takes one that is free.

    Raises:
        UsageError: the port is in use or not allowed, or the host is none of this machine.

    >>> with bound("127.0.0.1", 0) as taken:
    ...     taken.getsockname()[1] > 0
    True
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UsageError(f"--host {host!r} is no address of a machine: give one such as 127.0.0.1") from None
    taken = socket.socket(family, kind, protocol)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(2048)
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            why = f"--port {port} is in use by another program: choose another one, such as --port {port + 1}"
        elif error.errno == errno.EADDRNOTAVAIL:
            why = f"--host {host!r} is no address of this machine: give one such as 127.0.0.1"
        else:
            why = f"--port {port} cannot be opened at {host} ({error.strerror}): choose another one, such as 8000"
        raise UsageError(why) from None
    return taken


def address(taken: socket.socket) -> str:
    """The address of the page that is served there."""
    host, port = taken.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


def serve(app: FastAPI, taken: socket.socket, ready: Callable[[], None] | None = None) -> None:
    """Answer at a socket until Ctrl-C or SIGTERM; no address of a client is written down.

    Args:
        ready: called once it answers.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and ready is not None:
                ready()

    config = uvicorn.Config(app, access_log=False, log_level="error", lifespan="on", server_header=False)
    Server(config).run(sockets=[taken])
