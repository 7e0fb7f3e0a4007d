"""The headline for the terminal: the numbers of the page, as aligned text or as a Rich table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from steadygrad.report.reading import Summary
from steadygrad.report.wording import NOT_MEASURED, estimate, interval, number, percent, trusted, verdict

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["headline", "table", "tables"]

_COLUMNS = ("model", "clean accuracy", "robust accuracy", "verdict")


def headline(summary: Summary) -> list[str]:
    """The headline table as aligned lines of text, the first with the column names."""
    rows = [list(_COLUMNS), *_rows(summary)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    return [f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows]


def table(summary: Summary) -> Table:
    """The headline table for a Rich console; a refused number is struck out, and its reason stands beside it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    built = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in zip(_COLUMNS, ("left", "right", "right", "left"), strict=True):
        built.add_column(name, justify=justify, no_wrap=name.endswith("accuracy"))  # type: ignore[arg-type]
    for model, row in zip(summary["models"], _rows(summary), strict=True):
        stands = trusted(model)
        # Text, not markup: a name such as "[red]" is printed as it is.
        built.add_row(
            Text(row[0]),
            Text(row[1]),
            Text(row[2], style="bold" if stands else "strike dim"),
            Text(row[3], style="green" if stands else "red"),
        )
    return built


def tables(summary: Summary) -> list[Table]:
    """The headline, and below it what was found about explanations and neurons, if they were looked at."""
    built = [table(summary)]
    if explained := summary.get("explained"):
        title = "Explanations pushed by attacks, also as a share of the certified bound"
        names = ["model", "explanation", "top 10 % kept", "of the bound"]
        built.append(_table(title, names, _explanations(explained)))
    if neurons := summary.get("neurons"):
        title = "Neurons under attack; with a few held, the turned samples right again"
        names = ["model", "layer", "change / size", "most sensitive held", "random held"]
        built.append(_table(title, names, _layers(neurons)))
    return built


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first two columns are text and whose others are numbers; equal first cells stand once."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    built = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        built.add_column(name, justify="left" if place < 2 else "right", no_wrap=place > 1, overflow="fold")
    last = None
    for row in rows:
        built.add_row(*(Text("" if place == 0 and cell == last else cell) for place, cell in enumerate(row)))
        last = row[0]
    return built


def _explanations(explained: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, model in explained["models"].items():
        for row in model["attributions"]:
            if row["refused"] is not None:
                rows.append([name, row["name"], NOT_MEASURED, ""])
                continue
            kept = row["similarity"]["top_k_intersection"]["attack"]
            certified = row["deviation"]["euclidean"]["certified"]
            ratio = certified["ratio"]["0.5"]["value"] if certified and certified["ratio"] else None
            ends = f"{kept['value']:.2f} [{kept['low']:.2f}, {kept['high']:.2f}]"
            rows.append([name, row["name"], ends, number(ratio) if ratio is not None else "no bound"])
    return rows


def _layers(neurons: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, model in neurons["models"].items():
        if model["refused"] is not None:
            rows.append([name, NOT_MEASURED, "", "", ""])
        for layer in model["layers"]:
            held = [estimate((layer["restored"] or {}).get(which)) for which in ("most", "random")]
            relative = number(layer["relative"]["value"]) if layer["relative"] else "silent"
            rows.append([name, layer["name"], relative, *held])
    return rows


def _rows(summary: Summary) -> list[list[str]]:
    return [
        [str(model["name"]), _aligned(model["clean"]), _aligned(model["robust"]), verdict(model)]
        for model in summary["models"]
    ]


def _aligned(value: dict[str, float] | None) -> str:
    # The interval is padded to its longest form, so that the numbers of a column stand under each other.
    return NOT_MEASURED if value is None else f"{percent(value['value'])} {interval(value):<13}"
