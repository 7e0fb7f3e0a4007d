"""The race as a picture: what each library pays, and what it gets for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.attacks.tasks import OURS
from steadygrad import files
from steadygrad.report.style import GRID, INK, MARKERS, MUTED, PAPER, SERIES, drawing

__all__ = ["draw"]

Row = dict[str, Any]
_SPREAD = 0.2  # between libraries within a task, in rows


def draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write the picture as PNG: a row per task and a mark per library; where several settings ran, the best of them."""
    kept = _best([row for row in rows if not row["error"]])
    libraries = list(dict.fromkeys(row["library"] for row in kept))
    groups = [[row for row in kept if row["smallest"]], [row for row in kept if not row["smallest"]]]
    groups = [group for group in groups if group]
    heights = [len(_names(group)) for group in groups]
    with drawing(11.0):
        figure = Figure(
            figsize=(11.5, 1.9 + 0.55 * sum(heights) + 0.9 * len(heights)), facecolor=PAPER, layout="constrained"
        )
        grid = figure.subplots(len(groups), 3, squeeze=False, height_ratios=heights)
        for axes, group in zip(grid, groups, strict=True):
            _panel(axes[0], group, libraries, "passes per input", lambda r: r["forwards"] + r["backwards"], log=True)
            _panel(
                axes[1], group, libraries, "time, in bare passes of the batch", lambda r: r["ratio"]["value"], log=True
            )
            if group[0]["smallest"]:
                name = f"median distance ÷ {OURS}'s"
                _panel(axes[2], group, libraries, name, _relative(group))
                axes[2].axvline(1, color=MUTED, linewidth=0.8, zorder=0)
            else:
                _panel(axes[2], group, libraries, "success, %", lambda r: 100 * r["success"]["value"])
                axes[2].set_xlim(-3, 103)
            for other in axes[1:]:
                other.set_yticklabels([])
        figure.suptitle(f"{title}. Hollow: not found for every image", x=0.01, ha="left", color=INK, fontsize="medium")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=len(libraries), frameon=False)
        with files.atomic(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})


def _best(rows: list[Row]) -> list[Row]:
    """One row per task and library: that of the largest success, then of the smallest median; our own first one."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        place = row["task"], row["library"]
        if place not in best or (row["library"] != OURS and _merit(row) > _merit(best[place])):
            best[place] = row
    return list(best.values())


def _merit(row: Row) -> tuple[float, float]:
    median = row["median"]["value"]
    return row["success"]["value"], -median if median is not None else float("-inf")


def _names(group: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["task"] for row in group))


def _relative(group: Sequence[Row]) -> Callable[[Row], float | None]:
    own = {row["task"]: row["median"]["value"] for row in group if row["library"] == OURS}

    def value(row: Row) -> float | None:
        mine, theirs = own.get(row["task"]), row["median"]["value"]
        return theirs / mine if mine and theirs else None

    return value


def _panel(
    axes: Axes,
    group: Sequence[Row],
    libraries: Sequence[str],
    name: str,
    of: Callable[[Row], float | None],
    *,
    log: bool = False,
) -> None:
    """One quantity: tasks from top to bottom, libraries a little apart; hollow where fewer than all succeeded."""
    names = _names(group)
    for i, library in enumerate(libraries):
        for row in group:
            value = of(row) if row["library"] == library else None
            if value is None:
                continue
            whole = not row["smallest"] or row["success"]["value"] == 1
            place = names.index(row["task"]) + _SPREAD * (i - (len(libraries) - 1) / 2)
            color = SERIES[i % len(SERIES)]
            axes.plot(
                value,
                place,
                MARKERS[i % len(MARKERS)],
                color=color,
                markerfacecolor=color if whole else PAPER,
                markersize=7,
            )
        axes.plot([], [], MARKERS[i % len(MARKERS)], color=SERIES[i % len(SERIES)], label=library)
    if log:
        axes.set_xscale("log")
        # The formatter of a log axis writes powers in math, which the style leaves as text.
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_title(name, loc="left", fontsize="medium", color=INK)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    for line in range(1, len(names)):
        axes.axhline(line - 0.5, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
