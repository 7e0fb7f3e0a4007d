"""Attack against bound: how far the map of every sample was moved, and how far it can be moved at most."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from steadygrad.report.style import INK, MUTED, PAPER, SERIES, bare, logarithmic, plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values: TypeAlias = Mapping[Any, Sequence[float | None]]
_MARKS = {"linearized": ("o", SERIES[0], SERIES[0]), "certified": ("s", PAPER, SERIES[1])}


def limits(panels: Iterable[Values]) -> tuple[int, int, int, int] | None:
    """Decades of the axes that hold all panels: those of the bounds, then those of the attacks; None for no points."""
    pairs = [(x, y) for values in panels for kind in _MARKS for x, y in _points(values, kind) if x > 0 and y > 0]
    if not pairs:
        return None
    ends = []
    for axis in zip(*pairs, strict=True):
        low = math.floor(math.log10(min(axis)))
        ends += [low, max(low + 1, math.ceil(math.log10(max(axis))))]
    return ends[0], ends[1], ends[2], ends[3]


def scatter(values: Values, decades: tuple[int, int, int, int], title: str) -> str:
    """One point per sample on logarithmic axes: its bound to the right, the attack upwards, as SVG.

    Filled dots are linearized bounds, hollow squares certified ones. On the line the attack reaches the bound;
    a point above it exceeds the bound. What an attack did not move at all lies on the lower edge.
    """
    left, right, low, high = decades

    def draw(axes: Axes) -> None:
        ends = (10.0 ** min(left, low), 10.0 ** max(right, high))
        axes.plot(ends, ends, color=MUTED, linewidth=1, zorder=1)
        for kind, (mark, face, edge) in _MARKS.items():
            points = [(x, max(y, 10.0**low)) for x, y in _points(values, kind) if x > 0]
            if points:
                axes.plot(
                    *zip(*points, strict=True), linestyle="none", marker=mark, markersize=4.5, markerfacecolor=face,
                    markeredgecolor=edge, alpha=0.8, clip_on=False,
                )  # fmt: skip
        axes.set_xlim(10.0**left, 10.0**right)
        axes.set_ylim(10.0**low, 10.0**high)
        logarithmic(axes, "x", "y")
        bare(axes, "both", ("left", "bottom"))
        axes.set_xlabel("bound, in lengths of the map")
        axes.set_title("attack", loc="left", fontsize="medium", color=INK, x=-0.12)

    return plot(draw, title)


def _points(values: Values, kind: str) -> list[tuple[float, float]]:
    return [
        (bound, attack)
        for attack, bound in zip(values["attack"], values.get(kind, ()), strict=False)
        if attack is not None and bound is not None
    ]
