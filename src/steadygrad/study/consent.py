"""The pages around the trials: consent, thanks, withdrawal."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from steadygrad.study.served import CODE, IS_CODE, PERSON, Served, forget, remember

_DAY = 24 * 3600


def routes(served: Served) -> APIRouter:
    """The routes of these pages."""
    router = APIRouter()

    @router.get("/")
    def consent(request: Request) -> Response:
        """The text, or the trials for who has consented to it."""
        if served.whoever(request) is not None:
            return RedirectResponse("/trials", 303)
        code = request.query_params.get(served.settings.recruitment, "")
        return _asking(request, served.language(request), code)

    @router.post("/consent")
    def consented(
        request: Request,
        version: Annotated[str, Form(max_length=32)],
        language: Annotated[str, Form(max_length=16)],
        agree: Annotated[str, Form(max_length=8)] = "",
        code: Annotated[str, Form(max_length=200)] = "",
    ) -> Response:
        """Enroll who agrees to the text as it is now; a second tab, or a second click, enrolls nobody twice."""
        language = language if language in served.texts else served.language(request)
        if served.whoever(request) is not None:
            return RedirectResponse("/trials", 303)
        if version != served.settings.consent:
            return _asking(request, language, code, "consent_changed")
        if agree != "yes":
            return _asking(request, language, code, "agree_missing")
        _, token = served.enroll(language)
        response = RedirectResponse("/trials", 303)
        remember(request, response, PERSON, token, served.settings.retention_days * _DAY)
        if IS_CODE.fullmatch(code):
            served.database.recruited(code)
            remember(request, response, CODE, code, _DAY)
        return response

    def _asking(request: Request, language: str, code: str, wrong: str = "") -> Response:
        code = code if IS_CODE.fullmatch(code) else ""
        error = served.texts[language][wrong] if wrong else ""
        param = served.settings.recruitment
        return served.page(
            "consent.html.j2", language, status=400 if wrong else 200, code=code, error=error, parameter=param
        )

    @router.get("/trials")
    def trials(request: Request) -> Response:
        """The page on which the trials run."""
        found = served.whoever(request)
        if found is None:
            return RedirectResponse("/", 303)
        person, position = found
        if position >= len(served.trials(person.number)):
            return RedirectResponse("/done", 303)
        return served.page("trials.html.j2", person.language)

    @router.get("/done")
    def done(request: Request) -> Response:
        """Thanks, for who has answered all."""
        found = served.whoever(request)
        if found is None or not found[0].finished:
            return RedirectResponse("/", 303)
        return served.page("done.html.j2", found[0].language)

    @router.get("/withdraw")
    def withdraw(request: Request) -> Response:
        """The question whether."""
        found = served.whoever(request)
        if found is None:
            return RedirectResponse("/", 303)
        return served.page("withdraw.html.j2", found[0].language, finished=found[0].finished)

    @router.post("/withdraw")
    def withdrawn(request: Request) -> Response:
        """Delete all of a person."""
        found = served.whoever(request)
        language = found[0].language if found is not None else served.language(request)
        if found is not None:
            served.database.withdraw(found[0].id)
        response = served.page("withdrawn.html.j2", language)
        forget(response, PERSON, CODE)
        return response

    return router
