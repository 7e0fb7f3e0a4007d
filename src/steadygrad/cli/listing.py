"""`steadygrad list`: what there is, from the registries."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from steadygrad.cli import known
from steadygrad.cli.common import Debug, Json, emit
from steadygrad.errors import one_of


def listing(
    kind: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join(known.kinds()[:-1])} or {known.kinds()[-1]}.",
            show_default=False,
            autocompletion=known.completing(known.kinds()),
        ),
    ],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what there is: cost in passes, what it needs, how sound it is, where it comes from.

    Examples:

      steadygrad list attacks

      steadygrad list models --json
    """
    rows = _rows(kind)
    if json:
        emit({"kind": kind, "rows": rows})
        return
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    for row in rows:
        console.print(Text(str(row["name"]), "bold"))
        console.print(Padding(Text(str(row["summary"])), (0, 0, 0, 4)))
        for key in row:
            if key not in ("name", "summary"):
                line = Text.assemble((f"{key.replace('_', ' ')}: ", "dim"), _cell(row[key]))
                console.print(Padding(line, (0, 0, 0, 4)))


def _rows(kind: str) -> list[known.Row]:
    one_of("list", kind, known.kinds())
    return known.rows(kind)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
