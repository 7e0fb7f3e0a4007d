"""Distributions of gradient norms and confidences: one small panel per model, on common axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from steadygrad.report.reading import Array, Arrays
from steadygrad.report.style import INK, MUTED, SERIES, drawing, svg
from steadygrad.report.wording import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confidences", "gradient_limits", "gradient_norms"]


def gradient_limits(arrays: Arrays) -> tuple[int, int]:
    """The decades of the common gradient axis: at most nine, the largest norm included."""
    norms = [arrays[name] for name in sorted(arrays) if "gradient_norms_" in name]
    positive = np.concatenate([a[a > 0] for a in norms]) if norms else np.zeros(0)
    if not len(positive):
        return (-1, 1)
    top = math.ceil(math.log10(float(positive.max())) + 1e-9)
    return max(math.floor(math.log10(float(positive.min()))), top - 9), top


def gradient_norms(arrays: Arrays, model: int, title: str = "") -> str | None:
    """The distribution of a model's input-gradient norms on a logarithmic axis common to all models, as SVG.

    Filled: class of the label; line: the class after it. Norms below the axis, zero among them, stand in a hatched bar.
    """
    first, second = arrays.get(f"gradient_norms_{model}"), arrays.get(f"next_gradient_norms_{model}")
    if first is None or not len(first):
        return None
    low, high = gradient_limits(arrays)
    bins = np.linspace(low, high, 4 * (high - low) + 1)
    ticks = list(range(low, high + 1, max(1, (high - low) // 4)))
    below = float(np.mean(first < 10.0**low))

    def draw(axes: Axes) -> None:
        _histogram(axes, np.log10(np.maximum(first, 10.0 ** (low - 1))), bins, SERIES[0], filled=True)
        if second is not None and len(second):
            _histogram(axes, np.log10(np.maximum(second, 10.0 ** (low - 1))), bins, SERIES[1], filled=False)
        if below > 0:
            axes.bar(low - 0.45, below, 0.5, facecolor="none", edgecolor=MUTED, hatch="////", linewidth=0.8)
            axes.annotate(
                f"{percent(below)} below",
                (low - 0.15, 1.0),
                (3, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
                color=INK,
            )
        axes.set_xlim(low - 0.8, high)
        axes.set_xticks(ticks, [_decade(tick) for tick in ticks])

    return _panel(draw, title)


def confidences(arrays: Arrays, model: int, title: str = "") -> str | None:
    """The distribution of a model's top probability, clean (filled) and under attack (line), as SVG."""
    clean, attacked = arrays.get(f"confidence_clean_{model}"), arrays.get(f"confidence_adversarial_{model}")
    if clean is None or not len(clean):
        return None
    bins = np.linspace(0.0, 1.0, 26)

    def draw(axes: Axes) -> None:
        _histogram(axes, clean, bins, SERIES[0], filled=True)
        if attacked is not None and len(attacked):
            _histogram(axes, attacked, bins, SERIES[1], filled=False)
        axes.set_xlim(0, 1.005)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])

    return _panel(draw, title)


def _decade(power: int) -> str:
    return number(10.0**power) if -2 <= power <= 3 else number(10.0**power).replace("1·", "")


def _histogram(axes: Axes, values: Array, bins: Array, color: str, *, filled: bool) -> None:
    counts, _ = np.histogram(values, bins)
    share = counts / max(len(values), 1)
    if filled:
        axes.stairs(share, bins, fill=True, color=color, alpha=0.35, linewidth=0)
    else:
        axes.stairs(share, bins, color=color, linewidth=1.5)


def _panel(draw: Callable[[Axes], None], title: str) -> str:
    from matplotlib.figure import Figure

    width, height = 350, 108
    with drawing(11.0):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((14 / width, 24 / height, 1 - 32 / width, 1 - 32 / height))
        draw(axes)
        axes.set_ylim(0, max(0.05, 1.05 * axes.dataLim.y1))
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=3, pad=3)
        return svg(figure, title)
