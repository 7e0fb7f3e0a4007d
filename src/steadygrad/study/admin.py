"""The pages of who runs a study, behind a token that is printed when the server starts and stored nowhere."""

from __future__ import annotations

import hmac
import secrets
from collections import Counter
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from steadygrad.study.served import Served

_ADMIN = "admin"


def routes(served: Served, token: str) -> APIRouter:
    """The routes of these pages."""
    router = APIRouter(prefix="/admin")
    session = secrets.token_urlsafe(32)  # what the browser keeps instead of the token

    def allowed(request: Request) -> bool:
        return hmac.compare_digest(request.cookies.get(_ADMIN, "").encode(), session.encode())

    @router.get("")
    def overview(request: Request) -> Response:
        """How the study stands, or the question for the token."""
        if not allowed(request):
            return served.pages.page("token.html.j2", title="Study", wrong=False, status=401)
        rows = served.database.rows()
        persons = {row["person"]: row for row in rows}.values()
        blocks = Counter(row["block"] for row in persons)
        return served.pages.page(
            "admin.html.j2",
            title=served.settings.title,
            counted=served.database.count(),
            kinds=sorted(Counter(row["kind"] for row in rows).items()),
            blocks=[(number, blocks[number]) for number in range(len(served.design.blocks))],
            recruited=served.database.recruitments(),
            settings=served.settings,
        )

    @router.post("")
    def enter(request: Request, given: Annotated[str, Form(alias="token", max_length=200)]) -> Response:
        """Let in who has the token."""
        if not hmac.compare_digest(given.strip().encode(), token.encode()):
            return served.pages.page("token.html.j2", title="Study", wrong=True, status=401)
        response = RedirectResponse("/admin", 303)
        secure = request.url.scheme == "https"
        response.set_cookie(_ADMIN, session, httponly=True, samesite="strict", secure=secure, path="/admin")
        return response

    @router.post("/expire")
    def expire(request: Request) -> Response:
        """Delete whose retention date has come, now rather than at the next start."""
        if not allowed(request):
            raise HTTPException(401, "Give the token first, at /admin.")
        served.database.expire(date.today())
        return RedirectResponse("/admin", 303)

    return router
