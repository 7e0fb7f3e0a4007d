"""Accuracy against the size of the perturbation: one line per model, labeled at its end."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING, Any

from steadygrad.report.reading import Summary
from steadygrad.report.style import GRID, INK, MARKERS, MUTED, PAPER, SERIES, drawing, svg
from steadygrad.report.wording import norm, number, percent, trusted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curves", "curves_text", "spread"]


def curves(summary: Summary, *, narrow: bool = False) -> str:
    """Accuracy against eps of all models, with interval bands and labels at the lines, as SVG.

    A model whose number is not trustworthy is dashed with hollow markers. `narrow` is for a phone.
    """
    from matplotlib.figure import Figure

    drawn = [(i, model) for i, model in enumerate(summary["models"]) if _points(model)]
    width, height = (350, 300) if narrow else (760, 360)
    height = max(height, 90 + (32 if narrow else 20) * len(drawn))
    size = 11.0 if narrow else 12.0
    with drawing(size):
        figure = Figure(figsize=(width / 72, height / 72))
        left, right = (40 / width, 1 - 122 / width) if narrow else (52 / width, 1 - 190 / width)
        axes = figure.add_axes((left, 46 / height, right - left, 1 - 70 / height))
        for index, model in drawn:
            _curve(axes, index, model)
        _curve_axes(axes, summary)
        _end_labels(axes, drawn, 15 if narrow else 26, line=100 * 1.3 * size / (height - 70))
        return svg(figure, curves_text(summary))


def curves_text(summary: Summary) -> str:
    """What the curves show, in words and numbers."""
    parts = []
    for model in summary["models"]:
        points = _points(model)
        if points:
            first, last = points[0], points[-1]
            doubt = "" if trusted(model) else " (not trustworthy)"
            ends = f"{percent(first['accuracy']['value'])} at ε {number(first['eps'])}"
            if last is not first:
                ends += f", {percent(last['accuracy']['value'])} at ε {number(last['eps'])}"
            parts.append(f"{model['name']}{doubt}: {ends}")
    return "Accuracy against the size of the perturbation. " + "; ".join(parts) + "."


def _points(model: dict[str, Any]) -> list[dict[str, Any]]:
    found = model["curve"]["points"] if model["curve"] else []
    return [point for point in found if point["accuracy"] is not None]


def _curve(axes: Axes, index: int, model: dict[str, Any]) -> None:
    points = _points(model)
    eps = [point["eps"] for point in points]
    color, stands = SERIES[index % len(SERIES)], trusted(model)
    low, middle, high = ([100 * point["accuracy"][key] for point in points] for key in ("low", "value", "high"))
    axes.fill_between(eps, low, high, color=color, alpha=0.13, linewidth=0)
    axes.plot(
        eps,
        middle,
        color=color,
        linewidth=1.8,
        linestyle="-" if stands else (0, (4, 2.5)),
        marker=MARKERS[index % len(MARKERS)],
        markersize=5,
        markerfacecolor=color if stands else PAPER,
        markeredgecolor=color,
        clip_on=False,
        zorder=3,
    )


def _curve_axes(axes: Axes, summary: Summary) -> None:
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, pad=6)
    ends = [point["eps"] for model in summary["models"] for point in _points(model)]
    axes.set_xlim(0.0, max(ends, default=0.0) or 1.0)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(f"size of the perturbation, ε ({norm(summary['threat'])})")
    axes.set_title("accuracy, %", loc="left", fontsize="medium", color=INK, x=-0.02)
    eps = summary["threat"]["eps"]
    if eps is not None and eps <= axes.get_xlim()[1]:
        axes.axvline(eps, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        axes.annotate(
            f"audited at {number(eps)}", (eps, 100), (4, 3), textcoords="offset points", color=MUTED, va="bottom"
        )


def _end_labels(axes: Axes, drawn: list[tuple[int, dict[str, Any]]], wrap: int, line: float) -> None:
    """Write each name at the end of its line, moved apart where lines end together; a line of text is `line` % high."""
    if not drawn:
        return
    names = []
    for _, model in drawn:
        text = textwrap.wrap(str(model["name"]) + ("" if trusted(model) else " ✗"), wrap, max_lines=2, placeholder=" …")
        names.append("\n".join(text) or " ")
    ends = [(_points(model)[-1]["eps"], 100 * _points(model)[-1]["accuracy"]["value"]) for _, model in drawn]
    places = spread([end[1] for end in ends], [line * (1 + name.count("\n")) for name in names])
    for (index, _), name, end, place in zip(drawn, names, ends, places, strict=True):
        color = SERIES[index % len(SERIES)]
        axes.annotate(
            "",
            xy=end,
            xytext=(18, place),
            textcoords=("offset points", "data"),
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 5},
            annotation_clip=False,
        )
        axes.annotate(
            name, (end[0], place), (21, place), textcoords=("offset points", "data"), va="center", annotation_clip=False
        )


def spread(places: list[float], heights: list[float], low: float = 0.0, high: float = 100.0) -> list[float]:
    """Move centers of given heights apart so that none overlap, keeping their order and, if possible, [low, high].

    >>> spread([50.0, 50.0], [10.0, 10.0])
    [60.0, 50.0]
    """
    order = sorted(range(len(places)), key=lambda i: (places[i], -i))
    moved = list(places)
    for previous, current in itertools.pairwise(order):
        moved[current] = max(moved[current], moved[previous] + (heights[previous] + heights[current]) / 2)
    if order:
        moved[order[-1]] = min(moved[order[-1]], high)
    for upper, current in itertools.pairwise(reversed(order)):
        moved[current] = max(low, min(moved[current], moved[upper] - (heights[current] + heights[upper]) / 2))
    return moved
