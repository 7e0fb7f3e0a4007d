"""The look of all figures: colors, markers, Matplotlib settings, and the way from a figure to SVG text."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from steadygrad.report.svg import finish
from steadygrad.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["GRID", "INK", "MARKERS", "MUTED", "PAPER", "SERIES", "drawing", "logarithmic", "svg"]

INK, MUTED, GRID, PAPER = "#1c2024", "#5a6169", "#dfe2e5", "#fefefe"
# Told apart with any color vision, and at least 4.5:1 on white; markers say it a second time.
SERIES = ("#0b6aa2", "#b84a08", "#007a58", "#8f4a8b", "#7a6100", "#4a5058")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_RULES: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "steadygrad",
    "font.family": "sans-serif",
    "font.size": 12.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "hatch.color": MUTED,
    "hatch.linewidth": 0.8,
    "text.parse_math": False,
}


@contextlib.contextmanager
def drawing(size: float) -> Iterator[None]:
    """Matplotlib's defaults with this look and this font size, whatever the user's own settings are."""
    from matplotlib import style

    with style.context(["default", {**_RULES, "font.size": size}]):
        yield


def logarithmic(axes: Axes, *sides: Literal["x", "y"]) -> None:
    """Logarithmic axes with a few plain numbers on them; call it when everything is drawn.

    Matplotlib's own labels are written as formulas, and crowd an axis of less than a decade.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for side in sides:
        axes.set(**{f"{side}scale": "log"})
        axis = axes.xaxis if side == "x" else axes.yaxis
        low, high = (math.log10(end) for end in sorted(axis.get_view_interval()))
        steps = (1.0, 2.0, 5.0) if high - low < 2 else (1.0,)
        axis.set_major_locator(LogLocator(subs=steps, numticks=7))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(_plain))


def _plain(value: float, _: object = None) -> str:
    return number(value) if 1e-3 <= value <= 1e3 else number(value).removeprefix("1·")


def svg(figure: Figure, title: str) -> str:
    """A drawn figure as SVG text with a title; call it inside `drawing`."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names may use letters that the measuring font lacks; the page's own font draws them.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return finish(buffer.getvalue().decode("utf-8"), title)
