"""`steadygrad list`: what there is, from the registries."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from steadygrad.cli.common import Debug, Json, emit
from steadygrad.errors import unknown_name

_METHODS = ("name", "summary", "cost", "norms", "order", "soundness", "reference")


def listing(
    kind: Annotated[
        str,
        typer.Argument(
            help="attacks, attribution-attacks, attributions, bounds, defenses, measures, models, data, recipes or "
            "papers",
            show_default=False,
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


def _rows(kind: str) -> list[dict[str, Any]]:
    from steadygrad import data, models, papers, recipes
    from steadygrad.measuring.measures import MEASURES
    from steadygrad.registry import registries
    from steadygrad.training.train_plan import TrainPlan

    methods = {**registries(), "measures": MEASURES}
    if kind in methods:
        return [
            {**{c: getattr(row, c) for c in _METHODS if row.norms or c != "norms"}, "settings": _text(row.settings)}
            for row in methods[kind]
        ]
    if kind == "models":
        columns = ("name", "summary", "reference", "input_shape", "settings")
        return [{c: _text(getattr(row, c)) for c in columns} for row in models.ARCHITECTURES.values()]
    if kind == "data":
        return [{"name": row.name, "hub": row.hub or "not needed", "summary": row.summary} for row in data.DATASETS]
    if kind == "recipes":
        plans = [(row, TrainPlan.read(row.plan)) for row in recipes.RECIPES]
        return [
            {"name": row.name, "summary": row.summary, "defense": str(plan.objective()), "settings": plan.settings}
            for row, plan in plans
        ]
    if kind == "papers":
        columns = ("name", "summary", "reference", "data", "models")
        return [
            {c: _text(getattr(row, "says" if c == "summary" else c)) for c in columns} for row in papers.PAPERS.values()
        ]
    raise unknown_name("list", kind, [*methods, "models", "data", "recipes", "papers"])


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: v if isinstance(v, str | int | float | bool | None) else str(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
