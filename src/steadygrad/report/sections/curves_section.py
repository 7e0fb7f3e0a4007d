"""Accuracy against the size of the perturbation: a line per model, labeled at its end, and what is certified below."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING, Any

from steadygrad.report.blocks import Block, Figure, Folded, Table
from steadygrad.report.cells import borders_of, named, share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.style import INK, MARKERS, MUTED, PAPER, SERIES, bare, inline, plot
from steadygrad.report.wording import norm, number, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from steadygrad.audit.schema import Model, Summary
    from steadygrad.audit.schema_distances import Point


def blocks(run: Run) -> list[Block]:
    """The curves, wide and narrow, and their numbers; nothing where no curve has more than its first point."""
    models = run.summary.models
    if not any(len(_points(model)) > 1 for model in models):
        return []
    # Beside what attacks left of a model stands what is certified, which no refuted attack takes away.
    columns = [(named(m), _points(m), m.verdict.state != "refuted") for m in models]
    columns += [(f"{m.name}, certified", certified_points(m), True) for m in models if certified_points(m)]
    found = [({point.eps: point.accuracy for point in points}, stands) for _, points, stands in columns]
    rows = []
    for eps in sorted({eps for each, _ in found for eps in each}):
        rows.append((number(eps), [share(each.get(eps), stands) for each, stands in found]))
    caption = f"Accuracy at each size ε of the perturbation ({norm(run.summary.threat.norm)})"
    table = Table(caption, ["ε", *(title for title, _, _ in columns)], rows)
    attacks = ", ".join(dict.fromkeys(model.curve.attack for model in models if model.curve is not None))
    says = "Bands are 95 % intervals. A dashed line with hollow marks belongs to a number that does not hold."
    if any(map(certified_points, models)):
        says += (
            " In the darker band, between what attacks left and the dotted line of what is certified, lies the truth."
        )
    wide, narrow = (inline(curves(run.summary, narrow=small)) for small in (False, True))
    return [Figure(wide, f"Attack: {attacks}. {says}", narrow), Folded("The numbers of this figure", [table])]


def _points(model: Model) -> Sequence[Point]:
    return model.curve.points if model.curve is not None else ()


def certified_points(model: Model) -> Sequence[Point]:
    """The lower border of a curve; none where it crosses the upper one, which shows a defect."""
    borders = borders_of(model)
    return () if borders is None or borders.cross else borders.curve or ()


def curves(summary: Summary, *, narrow: bool = False) -> str:
    """Accuracy against eps of all models, with interval bands and labels at the lines, as SVG.

    A model whose number does not hold is dashed with hollow markers. `narrow` is for a phone.
    """
    drawn = [(i, model) for i, model in enumerate(summary.models) if _points(model)]
    width, height, size = (350, 300, 11.0) if narrow else (760, 360, 12.0)
    height = max(height, 90 + (32 if narrow else 20) * len(drawn))

    def draw(axes: Axes) -> None:
        for index, model in drawn:
            _curve(axes, index, model)
        _set_axes(axes, summary)
        _end_labels(axes, drawn, 15 if narrow else 26, line=100 * 1.3 * size / (height - 70))

    parts = []
    for _, model in drawn:
        points, doubt = _points(model), "" if model.verdict.state == "holds" else f" ({model.verdict.state})"
        ends = [f"{percent(p.accuracy.value)} at ε {number(p.eps)}" for p in dict.fromkeys((points[0], points[-1]))]
        if under := certified_points(model):
            ends.append(f"certified {percent(under[-1].accuracy.value)} there")
        parts.append(f"{model.name}{doubt}: {', '.join(ends)}")
    title = "Accuracy against the size of the perturbation. " + "; ".join(parts) + "."
    return plot(draw, title, (width, height), (40, 46, 122, 24) if narrow else (52, 46, 190, 24), size)


def _curve(axes: Axes, index: int, model: Model) -> None:
    points, stands = _points(model), model.verdict.state == "holds"
    eps = [point.eps for point in points]
    color = SERIES[index % len(SERIES)]
    low, middle, high = ([100 * getattr(p.accuracy, key) for p in points] for key in ("low", "value", "high"))
    if under := certified_points(model):
        border, low = ([100 * getattr(p.accuracy, key) for p in under] for key in ("value", "low"))
        axes.fill_between(eps, border, middle, color=color, alpha=0.2, linewidth=0)
        axes.plot(eps, border, color=color, linewidth=1.6, linestyle=(0, (1, 1.6)), clip_on=False, zorder=3)
    axes.fill_between(eps, low, high, color=color, alpha=0.13, linewidth=0)
    axes.plot(
        eps, middle, color=color, linewidth=1.8, linestyle="-" if stands else (0, (4, 2.5)),
        marker=MARKERS[index % len(MARKERS)], markersize=5, markerfacecolor=color if stands else PAPER,
        markeredgecolor=color, clip_on=False, zorder=3,
    )  # fmt: skip


def _set_axes(axes: Axes, summary: Summary) -> None:
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100])
    bare(axes)
    axes.set_xlim(0.0, max((p.eps for model in summary.models for p in _points(model)), default=0.0) or 1.0)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(f"size of the perturbation, ε ({norm(summary.threat.norm)})")
    axes.set_title("accuracy, %", loc="left", fontsize="medium", color=INK, x=-0.02)
    eps = summary.threat.eps
    if eps <= axes.get_xlim()[1]:
        axes.axvline(eps, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        text = f"audited at {number(eps)}"
        axes.annotate(text, (eps, 100), (4, 3), textcoords="offset points", color=MUTED, va="bottom")


def _end_labels(axes: Axes, drawn: list[tuple[int, Model]], wrap: int, line: float) -> None:
    """Write each name at the end of its line, moved apart where lines end together; a line of text is `line` % high."""
    names = []
    for _, model in drawn:
        state = model.verdict.state
        name = model.name + {"holds": "", "refuted": " ✗"}.get(state, f" ({state})")
        names.append("\n".join(textwrap.wrap(name, wrap, max_lines=2, placeholder=" …")) or " ")
    last = [_points(model)[-1] for _, model in drawn]
    ends = [(point.eps, 100 * point.accuracy.value) for point in last]
    places = spread([end[1] for end in ends], [line * (1 + name.count("\n")) for name in names])
    for (index, _), name, end, place in zip(drawn, names, ends, places, strict=True):
        stroke = {"arrowstyle": "-", "color": SERIES[index % len(SERIES)], "linewidth": 0.9, "shrinkA": 0, "shrinkB": 5}
        beside: dict[str, Any] = {"textcoords": ("offset points", "data"), "annotation_clip": False}
        axes.annotate("", end, (18, place), arrowprops=stroke, **beside)
        axes.annotate(name, (end[0], place), (21, place), va="center", **beside)


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


SECTION = ReportSection(40, "curves", "Curves", "Accuracy against the size of the perturbation", "models.curve", blocks)
