"""The rows of a race as a table for the terminal, and as CSV files."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from benchmarks.attacks.tasks import OURS

__all__ = ["about", "distances_csv", "markdown", "rows_csv", "verdicts", "view"]

_PICTURE = "attacks.png"
_COLUMNS = (
    "task", "library", "variant", "attack", "norm", "eps", "success", "success_low", "success_high", "median",
    "median_low", "median_high", "forwards", "backwards", "seconds", "bare_seconds", "ratio", "ratio_low",
    "ratio_high", "cpu_ratio", "laps", "error",
)  # fmt: skip


def view(rows: Sequence[dict[str, Any]]) -> Table:
    """The table for a Rich console: a block per task, this library's rows first and in bold."""
    built = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    built.add_column("", overflow="fold")
    for name in ("success", "median distance", "forw.", "backw.", "time"):
        built.add_column(name, justify="right", no_wrap=True)
    for task, group in itertools.groupby(rows, key=lambda row: str(row["task"])):
        built.add_row(Text(task, style="underline"))
        for row in group:
            style = "red" if row["error"] else "bold" if row["library"] == OURS else ""
            cells = (f"  {row['library']} {row['variant']}".rstrip(), *_cells(row))
            built.add_row(*(Text(cell, style=style) for cell in cells))
        built.add_section()
    return built


def _cells(row: dict[str, Any]) -> list[str]:
    if row["error"]:
        return ["failed", *[""] * 4]
    median = row["median"]
    interval = f" [{_short(median['low'])}, {_short(median['high'])}]" if row["smallest"] else ""
    return [
        f"{100 * row['success']['value']:.1f} %",
        f"{_short(median['value'])}{interval}" if row["smallest"] else "",
        *(_count(value) for value in (row["forwards"], row["backwards"], row["ratio"]["value"])),
    ]


def about(found: dict[str, Any]) -> str:
    """On what the figures were measured, in a sentence or two."""
    machine, accuracy = found["machine"], found["accuracy"]["value"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    load = "" if machine["load_before"] is None else f", load before {machine['load_before']:.1f}"
    note = f" Note: {found['note']}." if found["note"] else ""
    return (
        f"{found['samples']} images of {found['data']}, model accuracy {100 * accuracy:.1f} %, seed {found['seed']}, "
        f"{machine['device']}, {machine['threads']} of {machine['cores']} cores{load}. "
        f"Time in bare forward and backward passes of the batch. {versions}.{note}"
    )


def markdown(found: dict[str, Any]) -> str:
    """The whole result as a Markdown page: what was measured, the claims, the rows."""
    lines = ["# Attacks beside those of other libraries", "", about(found), ""]
    lines += [f"![passes, time, and what was found]({_PICTURE})", ""]
    lines += ["| claim | limit | measured | holds |", "|---|---:|---:|---|"]
    holds = {True: "yes", False: "**no**", None: "nothing to compare"}
    for claim in found["claims"]:
        lines.append(
            f"| {claim['text']} | {_short(claim['limit'])} | {_short(claim['value'])} | {holds[claim['holds']]} |"
        )
    names = ("task", "library", "attack", "success", "median distance", "forwards", "backwards", "time")
    lines += ["", f"| {' | '.join(names)} |", "|---|---|---|---:|---:|---:|---:|---:|"]
    for row in found["rows"]:
        who = f"**{row['library']}**" if row["library"] == OURS else row["library"]
        words = f"{row['attack']}: {row['error']}" if row["error"] else row["attack"]
        cells = [row["task"], f"{who} {row['variant']}".strip(), words.replace("|", "/"), *_cells(row)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\nNot compared: {name} ({reason})." for name, reason in found["absent"].items()]
    return "\n".join(lines) + "\n"


def _count(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def verdicts(claims: Sequence[dict[str, Any]]) -> Table:
    """The claims for a Rich console."""
    built = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in (("claim", "left"), ("limit", "right"), ("measured", "right"), ("", "left")):
        built.add_column(name, justify=justify)  # type: ignore[arg-type]
    marks = {True: Text("✓", style="green"), False: Text("✗ missed", style="red"), None: Text("nothing to compare")}
    for claim in claims:
        built.add_row(claim["text"], _short(claim["limit"]), _short(claim["value"]), marks[claim["holds"]])
    return built


def rows_csv(rows: Sequence[dict[str, Any]]) -> str:
    """All rows as CSV text, one line per contender; what was not measured is empty."""
    return _csv(_COLUMNS, (_flat(row) for row in rows))


def distances_csv(rows: Sequence[dict[str, Any]], ids: Sequence[str]) -> str:
    """The distance found for each image as CSV text; empty where none was."""
    made = (
        {**{k: row[k] for k in ("task", "library", "variant")}, "id": name, "distance": distance}
        for row in rows
        if not row["error"]
        for name, distance in zip(ids, row["distances"], strict=True)
    )
    return _csv(("task", "library", "variant", "id", "distance"), made)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat.update({name if part == "value" else f"{name}_{part}": v for part, v in value.items()})
        else:
            flat[name] = value
    return flat


def _csv(columns: Sequence[str], lines: Any) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()})
    return text.getvalue()
