"""Pages in the look of the report: templates that escape whatever they are given, and the files that they load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.responses import HTMLResponse

from steadygrad.readable import readable

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"


class Pages:
    """The templates of a room, which extend `base.html.j2` of this one.

    The blocks of `base.html.j2` are `head` (style sheets and scripts by `src`; none may stand in the page itself) and
    `main`; it needs `title`, and takes `language`, else "en".

    >>> Pages().page("refusal.html.j2", status=404, title="Not <here>", text="...").status_code
    404
    """

    def __init__(self, *folders: Path) -> None:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        self._templates = Environment(
            loader=FileSystemLoader([*folders, TEMPLATES]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def page(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """The page that a template makes of values."""
        made = self._templates.get_template(template).render(**{"language": "en", **values})
        return HTMLResponse(readable(made, lines=True), status_code=status)
