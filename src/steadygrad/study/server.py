"""`study serve`: a study folder as pages, its answers in a database."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import date
from pathlib import Path

from fastapi import FastAPI

from steadygrad.serving.app import make_app
from steadygrad.serving.limits import Limits
from steadygrad.serving.port import address, bound, serve
from steadygrad.study import admin, consent, settings, trials
from steadygrad.study.database import Database
from steadygrad.study.folder import read
from steadygrad.study.served import Served

STATIC = Path(__file__).parent / "static"


def app_of(folder: str | Path, database: Database, token: str, limits: Limits | None = None) -> FastAPI:
    """The app of a study folder.

    Raises:
        UsageError, Failure: there is no study, or it is damaged, or a setting does not fit.
    """
    served = Served(Path(folder), read(folder), settings.read(folder), database)
    app = make_app(served.settings.title, static=STATIC, limits=limits)
    for router in (consent.routes(served), trials.routes(served), admin.routes(served, token)):
        app.include_router(router)
    return app


def run(folder: Path, database: str | None, host: str, port: int, rate: float, say: Callable[[str], None]) -> None:
    """Serve a study until Ctrl-C; whose retention date has come is deleted first.

    Raises:
        UsageError, Failure: as of `app_of` and `Database`; the port is in use.
    """
    design, about = read(folder), settings.read(folder)
    with bound(host, port) as taken:
        kept = Database(database or f"sqlite:///{folder / 'answers.sqlite'}", design.key)
        try:
            kept.said("rules", about.rules.model_dump_json())
            gone, token = kept.expire(date.today()), secrets.token_urlsafe(24)
            limits = Limits(rate=rate, burst=int(10 * rate))
            app = app_of(folder, kept, token, limits)

            def ready() -> None:
                if gone:
                    say(f"deleted after {about.retention_days} days: {gone} persons with their answers")
                if not about.contact:
                    say(f"{folder / settings.FILE} names no contact: fill it in before you invite people")
                say(f"answers: {kept.named.removeprefix('the database ')}")
                say(f"study: {address(taken)}")
                say(f"for you: {address(taken)}/admin, with the token {token} (told only now)")

            serve(app, taken, ready)
        finally:
            kept.close()
