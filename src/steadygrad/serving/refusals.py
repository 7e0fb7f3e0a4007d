"""How a server says no: a page for people, JSON for scripts, nothing of what was sent in either."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from steadygrad.serving.pages import Pages

_PAGES = Pages()


def refusal(request: Request, status: int, title: str, text: str) -> Response:
    """What is answered in the place of what was asked for."""
    if "text/html" in request.headers.get("accept", ""):
        return _PAGES.page("refusal.html.j2", status=status, title=title, text=text)
    return JSONResponse({"error": title, "detail": text}, status_code=status)
