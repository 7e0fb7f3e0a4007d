"""What the routes of a study share: the design, the settings, the database, and who is asking."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from steadygrad.serving.pages import Pages
from steadygrad.study.database import Database
from steadygrad.study.database_tables import Person
from steadygrad.study.design import Design, Trial
from steadygrad.study.settings import Settings

PERSON, CODE = "person", "code"
IS_CODE = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""What a recruitment id may be."""
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass
class Served:
    """A study that is being served, from its folder."""

    folder: Path
    design: Design
    settings: Settings
    database: Database
    pages: Pages = field(default_factory=lambda: Pages(_TEMPLATES))

    def __post_init__(self) -> None:
        self.texts = {language: self.settings.text(language) for language in self.settings.languages}
        self.trials = functools.lru_cache(maxsize=1024)(self._trials)
        self.pictures = frozenset(name for stimulus in self.design.stimuli.values() for name in stimulus.images)

    def _trials(self, number: int) -> tuple[Trial, ...]:
        return tuple(self.design.trials(number))

    def whoever(self, request: Request) -> tuple[Person, int] | None:
        """Who is asking, and the first position that is not answered."""
        token = request.cookies.get(PERSON, "")
        return self.database.person(token) if token else None

    def somebody(self, request: Request) -> tuple[Person, int]:
        """The same; refused where nobody is known."""
        found = self.whoever(request)
        if found is None:
            raise HTTPException(
                401, "There is no consent of this browser, or it was withdrawn: begin at the first page."
            )
        return found

    def language(self, request: Request) -> str:
        """The language that a link asks for, or else that of the browser."""
        asked = request.query_params.get("language", "")
        return asked if asked in self.texts else self.settings.language_for(request.headers.get("accept-language", ""))

    def enroll(self, language: str) -> tuple[Person, str]:
        """Somebody who has consented."""
        today = date.today()
        expires = today + timedelta(days=self.settings.retention_days)
        return self.database.enroll(
            language, self.settings.consent, blocks=len(self.design.blocks), expires=expires, today=today
        )

    def page(self, template: str, language: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A page with the texts of a language."""
        text = self.texts[language]
        languages = {name: texts["language_name"] for name, texts in self.texts.items()}
        return self.pages.page(
            template, status=status, language=language, languages=languages, title=self.settings.title, text=text,
            settings=self.settings, **values,
        )  # fmt: skip


def remember(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """Have the browser keep a secret that no script reads and that other sites cannot use."""
    secure = request.url.scheme == "https"
    response.set_cookie(name, value, max_age=seconds, httponly=True, samesite="lax", secure=secure)


def forget(response: Response, *names: str) -> None:
    """Have the browser forget."""
    for name in names:
        response.delete_cookie(name, httponly=True, samesite="lax")
