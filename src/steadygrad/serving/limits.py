"""What a server refuses before it looks at a request: floods, large bodies, and requests that other sites make."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steadygrad.serving.refusals import refusal

_CLIENTS = 10_000
_READING = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Limits:
    """How much a server takes.

    Args:
        rate: requests a second of one client, in the long run.
        burst: requests that it may make at once, on top.
        body: bytes of a request.

    >>> Limits(body=1000).rate
    30.0
    """

    rate: float = 30.0
    burst: int = 300
    body: int = 64 * 1024


class Allowance:
    """How many requests each client may still make; addresses are kept in memory alone, as keyed hashes.

    >>> clock = iter([0.0, 0.0, 0.0, 1.0])
    >>> allowance = Allowance(rate=1.0, burst=2, clock=lambda: next(clock))
    >>> [allowance.wait("someone") for _ in range(4)]
    [0.0, 0.0, 1.0, 0.0]
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._key = secrets.token_bytes(16)
        self._left: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._turn = threading.Lock()

    def wait(self, client: str) -> float:
        """0 where a request may pass, which is counted; else the seconds until one may."""
        name = hashlib.blake2b(client.encode(), digest_size=12, key=self._key).digest()
        with self._turn:
            now = self.clock()
            left, last = self._left.pop(name, (float(self.burst), now))
            left = min(float(self.burst), left + self.rate * (now - last))
            passes = left >= 1
            self._left[name] = (left - 1 if passes else left, now)
            while len(self._left) > _CLIENTS:  # whoever was away for longest has its allowance back
                self._left.popitem(last=False)
        return 0.0 if passes else (1 - left) / self.rate


class Guard:
    """The app behind it sees no request that is one too many, too large, or made by the page of another site."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.allowance = Allowance(limits.rate, limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer why not."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return None
        request = Request(scope)
        headers = request.headers
        wait = self.allowance.wait(request.client.host if request.client else "")
        if wait:
            response = refusal(request, 429, "Too many requests", "Please wait a moment and try again.")
            response.headers["retry-after"] = str(int(wait) + 1)
            return await response(scope, receive, send)
        if scope["method"] not in _READING and not same_site(headers):
            response = refusal(request, 403, "Refused", "This request was made by the page of another site.")
            return await response(scope, receive, send)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.limits.body:
            response = refusal(request, 413, "Too large", self._most)
            return await response(scope, receive, send)
        taken = 0

        async def counted() -> Message:  # of what comes without a length
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.limits.body:
                raise HTTPException(413, self._most)
            return message

        await self.app(scope, counted, send)
        return None

    @property
    def _most(self) -> str:
        return f"A request may have {self.limits.body:,} bytes at most."


def same_site(headers: Headers) -> bool:
    """Whether a request that changes something comes from a page of this server, or from no page at all.

    >>> same_site(Headers({"host": "here:80", "origin": "http://here:80"}))
    True
    >>> same_site(Headers({"host": "here:80", "origin": "http://elsewhere"}))
    False
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")
