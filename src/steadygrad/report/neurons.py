"""Figures of the section on neurons: how far layers move under attack, and what holding a few neurons restores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from steadygrad.report.reading import Summary
from steadygrad.report.style import GRID, INK, MARKERS, SERIES, drawing, svg
from steadygrad.report.wording import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CHOICES", "figures", "numbered"]

CHOICES = {"most": "the most sensitive", "random": "random ones", "least": "the least sensitive"}
_WIDTH, _HEIGHT = 350, 210
_LABELED = 8


def figures(summary: Summary) -> list[tuple[str, str, str]]:
    """By model with layers: its name, the change of its layers, and what holding neurons restores, as SVG."""
    rows = (summary.get("neurons") or {"models": {}})["models"]
    moved = [layer["relative"] for row in rows.values() for layer in row["layers"] if layer["relative"]]
    top = 1.08 * max((value["high"] for value in moved), default=1.0)
    drawn = []
    for name, row in rows.items():
        if row["layers"]:
            drawn.append((name, _change(name, row["layers"], top), _restored(name, row["layers"])))
    return drawn


def numbered(layers: Sequence[dict[str, Any]]) -> bool:
    """Whether layers have numbers, on the axis and in the table: long names would run into each other."""
    return max((len(layer["name"]) for layer in layers), default=0) > 6


def _change(name: str, layers: Sequence[dict[str, Any]], top: float) -> str:
    """The mean change of each layer over its mean size, on the scale of all models."""
    from matplotlib.figure import Figure

    with drawing(11.0):
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72))
        axes = _axes(figure, layers, "change / size of the output")
        _line(axes, [layer["relative"] for layer in layers], 0, 1.0)
        axes.set_ylim(0, top or 1.0)
        axes.locator_params(axis="y", nbins=5)
        moved = [row for row in layers if row["relative"]]
        ends = [f"{row['name']} {number(row['relative']['value'])}" for row in (moved[:1] + moved[1:][-1:])]
        return svg(figure, f"{name}: change of each layer over the size of its output. {' to '.join(ends)}.")


def _restored(name: str, layers: Sequence[dict[str, Any]]) -> str:
    """The share of fooled samples that are right again, for the three choices of neurons."""
    from matplotlib.figure import Figure

    with drawing(11.0):
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72))
        axes = _axes(figure, layers, "right again, %")
        for place, choice in enumerate(CHOICES):
            _line(axes, [layer["restored"] and layer["restored"][choice] for layer in layers], place, 100.0)
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 25, 50, 75, 100])
        return svg(figure, f"{name}: right again with neurons held. {_best(layers)}.")


def _best(layers: Sequence[dict[str, Any]]) -> str:
    judged = [layer for layer in layers if layer["restored"]]
    if not judged:
        return "No sample was turned, so none could come back"
    best = max(judged, key=lambda layer: float(layer["restored"]["most"]["value"]))
    parts = [f"{words} {percent(best['restored'][choice]['value'])}" for choice, words in CHOICES.items()]
    return f"At best, in layer {best['name']}: {', '.join(parts)}"


def _axes(figure: Any, layers: Sequence[dict[str, Any]], title: str) -> Axes:
    axes: Axes = figure.add_axes((40 / _WIDTH, 44 / _HEIGHT, 1 - 56 / _WIDTH, 1 - 70 / _HEIGHT))
    step = max(1, -(-len(layers) // _LABELED))
    places = range(0, len(layers), step)
    labels = [str(place + 1) if numbered(layers) else layers[place]["name"] for place in places]
    axes.set_xticks(list(places), labels)
    axes.set_xlim(-0.4, len(layers) - 0.6)
    axes.set_xlabel("layer")
    axes.set_title(title, loc="left", fontsize="medium", color=INK, x=-0.02)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, pad=5)
    return axes


def _line(axes: Axes, values: Sequence[dict[str, float] | None], series: int, scale: float) -> None:
    points = [(place, value) for place, value in enumerate(values) if value is not None]
    x = [place + 0.06 * (series - 1) for place, _ in points]
    middle, low, high = ([scale * value[key] for _, value in points] for key in ("value", "low", "high"))
    axes.vlines(x, low, high, color=SERIES[series], linewidth=1.2, alpha=0.6)
    axes.plot(
        x, middle, color=SERIES[series], linewidth=1.4, marker=MARKERS[series], markersize=5, clip_on=False, zorder=3
    )
