"""The app that every server starts from: it documents nothing of itself, and its headers forbid what is not needed."""

from __future__ import annotations

import logging
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steadygrad.report import blocks
from steadygrad.serving.limits import Guard, Limits
from steadygrad.serving.pages import STATIC
from steadygrad.serving.refusals import refusal

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing is loaded from elsewhere; neither scripts nor styles that stand in a page are run."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_TITLES = {404: "Not found", 405: "Refused", 401: "Not allowed", 403: "Not allowed"}


def make_app(title: str, *, static: Path | None = None, limits: Limits | None = None) -> FastAPI:
    """An app without routes but those of its style sheets and scripts.

    Args:
        static: the room's own files, found below `/static/own/`; those of this room are below `/static/`, together with
            the report's style sheet, `/static/page.css`.
        limits: how much is taken of one client and request.

    >>> [route.path for route in make_app("Example").routes]
    ['/static/page.css', '/static']
    """
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/static/page.css", lambda: FileResponse(blocks.TEMPLATES / "page.css"), include_in_schema=False)
    if static is not None:
        app.mount("/static/own", StaticFiles(directory=static))
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _misread)
    app.add_middleware(Guard, limits=limits or Limits())
    app.add_middleware(_Outermost)
    return app


class _Outermost:
    """Sets the headers that a response has not set itself, and answers where the app fails."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                there = {name for name, _ in message["headers"]}
                kept = "no-cache" if scope["path"].startswith("/static/") else "no-store"
                added = {**HEADERS, "cache-control": kept}
                new = [(k.encode(), v.encode()) for k, v in added.items() if k.encode() not in there]
                message = {**message, "headers": [*message["headers"], *new]}
            await send(message)

        try:
            await self.app(scope, receive, with_headers)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            await _failed(Request(scope), error)(scope, receive, with_headers)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = _TITLES.get(error.status_code, "Refused")
    text = "There is nothing at this address." if error.status_code == 404 else str(error.detail)
    response = refusal(request, error.status_code, title, text)
    response.headers.update(error.headers or {})
    return response


def _misread(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]  # without what was sent
    where = ".".join(map(str, first["loc"]))
    return refusal(request, 422, "Not understood", f"{where}: {first['msg']}")


def _failed(request: Request, error: Exception) -> Response:
    logging.getLogger("steadygrad").error("%s %s failed", request.method, request.url.path, exc_info=error)
    return refusal(request, 500, "Something went wrong here", "Please try again; nothing that was accepted is lost.")
