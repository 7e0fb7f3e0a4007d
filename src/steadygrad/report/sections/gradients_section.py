"""Gradients, confidences, and how far explanations move: distributions per model on common axes, and a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from steadygrad.report.blocks import Block, Cell, Group, Inline, Items, Panels, Row, Table, Text, html, missing, titled
from steadygrad.report.png import Array, Arrays
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.style import INK, MUTED, SERIES, drawing, inline, svg
from steadygrad.report.wording import NOT_MEASURED, number, percent, spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from steadygrad.audit.schema import MapSimilarity, Model
    from steadygrad.audit.schema_values import Quantiles

__all__ = ["SECTION", "confidences", "gradient_limits", "gradient_norms"]

_FILLED = Markup('<span class="swatch filled" aria-hidden="true"></span> filled')
_LINE = Markup('<span class="swatch line" aria-hidden="true"></span> line')


def blocks(run: Run) -> list[Block]:
    """The two distributions of each model, and the similarity of maps before and after."""
    norms = "<b>Gradient norm:</b> ℓ2 norm of the loss’s input gradient on clean inputs, logarithmic. "
    norms += "{}: the class of the label; {}: the class after it."
    sure = "<b>Confidence</b> of the prediction. {}: clean; {}: under attack. Heights are shares of the samples."
    keys = [html(norms, _FILLED, _LINE), html(sure, _FILLED, _LINE)]
    panels = [(model.name, _panels(run.arrays, index, model)) for index, model in enumerate(run.summary.models)]
    return [
        Items(keys, "keys"),
        Panels(panels),
        Text("In brackets the 5 % and 95 % quantiles.", "note"),
        *titled("How far explanations move", _explanations(run)),
    ]


def _panels(arrays: Arrays, index: int, model: Model) -> list[tuple[Markup | None, Inline]]:
    norms = model.gradient_norm.quantiles if model.gradient_norm is not None else None
    clean, attacked = (model.confidence.clean, model.confidence.adversarial) if model.confidence else (None, None)
    titles = (
        f"{model.name}: input-gradient norm, {_spread(norms, number)}",
        f"{model.name}: confidence, clean {_spread(clean, percent)}; under attack {_spread(attacked, percent)}",
    )
    drawn = (gradient_norms(arrays, index, titles[0]), confidences(arrays, index, titles[1]))
    captions: list[Inline] = ["gradient norm", "confidence"]
    if norms is not None:
        ends = f"[{number(norms.q05)}, {number(norms.q95)}]"
        captions[0] = html('gradient norm, median {} <span class="ci">{}</span>', number(norms.q50), ends)
    if clean is not None and attacked is not None:
        captions[1] = f"confidence, median {percent(clean.q50)}, under attack {percent(attacked.q50)}"
    return [(None if figure is None else inline(figure), caption) for figure, caption in zip(drawn, captions)]


def _spread(found: Quantiles | None, text: Callable[[float | None], str]) -> str:
    if found is None:
        return NOT_MEASURED
    return f"median {text(found.q50)}, from {text(found.q05)} (5 %) to {text(found.q95)} (95 %)"


def _explanations(run: Run) -> Table:
    every = [row for model in run.summary.models for row in model.explanations]
    conditions = list(dict.fromkeys(row.under for row in every))
    groups = []
    for model in run.summary.models:
        found: dict[tuple[str, str], dict[str, MapSimilarity]] = {}
        for row in model.explanations:
            found.setdefault((row.attribution, row.measure), {})[row.under] = row
        rows: list[Row] = []
        for (attribution, measure), under in found.items():
            cells = [Cell(spaced(measure))]
            for condition in conditions:
                mean = under.get(condition)
                ends = f"[{mean.low:.2f}, {mean.high:.2f}]" if mean is not None else ""
                cells.append(Cell(missing() if mean is None else f"{mean.mean:.2f}", ends))
            cells.append(Cell(", ".join(dict.fromkeys(str(row.count) for row in under.values()))))
            rows.append((spaced(attribution), cells))
        groups += [Group(model.name, rows)] if rows else []
    return Table(
        "Mean similarity of the explanation before and after (1: the same), with its 95 % interval.",
        ["Explanation", "Similarity", *(f"under {condition}" for condition in conditions), "Samples"],
        words=(0,),
        groups=groups,
    )


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


SECTION = ReportSection(
    80,
    "gradients",
    "Gradients",
    "Gradients, confidences, explanations",
    ("models.gradient_norm", "models.confidence", "models.explanations"),
    blocks,
)
