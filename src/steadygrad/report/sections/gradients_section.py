"""Gradients, confidences, and how far explanations move: distributions per model on common axes, and a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from steadygrad.report import blocks as page
from steadygrad.report.blocks import Block, Cell, Inline, Row, Table, Text, html, legend, missing
from steadygrad.report.cells import ranged
from steadygrad.report.png import Array, Arrays
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.style import INK, MUTED, SERIES, inline, plot
from steadygrad.report.wording import NOT_MEASURED, number, percent, spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from steadygrad.audit.schema import MapSimilarity, Model
    from steadygrad.audit.schema_values import Quantiles


def blocks(run: Run) -> list[Block]:
    """The two distributions of each model, and the similarity of maps before and after."""
    words = (
        "<b>Gradient norm:</b> ℓ2 norm of the loss’s input gradient on clean inputs, logarithmic. {}: the class of the "
        "label; {}: the class after it.",
        "<b>Confidence</b> of the prediction. {}: clean; {}: under attack. Heights are shares of the samples.",
    )
    swatches = [legend(f"swatch {kind}", kind) for kind in ("filled", "line")]
    return [
        page.Items([html(text, *swatches) for text in words], "keys"),
        page.Panels(
            [(model.name, _panels(run.arrays, index, model)) for index, model in enumerate(run.summary.models)]
        ),
        Text("In brackets the 5 % and 95 % quantiles.", "note"),
        *page.titled("How far explanations move", _explanations(run)),
    ]


def _panels(arrays: Arrays, index: int, model: Model) -> list[tuple[Markup | None, Inline]]:
    norm_in_words = sure_in_words = NOT_MEASURED
    captions: list[Inline] = ["gradient norm", "confidence"]
    if model.gradient_norm is not None:
        norms = model.gradient_norm["quantiles"]
        norm_in_words = _spread(norms, number)
        ends = f"[{number(norms['0.05'])}, {number(norms['0.95'])}]"
        captions[0] = html('gradient norm, median {} <span class="ci">{}</span>', number(norms["0.5"]), ends)
    if model.confidence is not None:
        clean, attacked = model.confidence["clean"], model.confidence["adversarial"]
        sure_in_words = f"clean {_spread(clean, percent)}; under attack {_spread(attacked, percent)}"
        captions[1] = f"confidence, median {percent(clean['0.5'])}, under attack {percent(attacked['0.5'])}"
    drawn = (
        gradient_norms(arrays, index, f"{model.name}: input-gradient norm, {norm_in_words}"),
        confidences(arrays, index, f"{model.name}: confidence, {sure_in_words}"),
    )
    return [(None if figure is None else inline(figure), caption) for figure, caption in zip(drawn, captions)]


def _spread(found: Quantiles, text: Callable[[float | None], str]) -> str:
    return f"median {text(found['0.5'])}, from {text(found['0.05'])} (5 %) to {text(found['0.95'])} (95 %)"


def _explanations(run: Run) -> Table:
    conditions = list(dict.fromkeys(row.under for model in run.summary.models for row in model.explanations))
    groups = []
    for model in run.summary.models:
        found: dict[tuple[str, str], dict[str, MapSimilarity]] = {}
        for row in model.explanations:
            found.setdefault((row.attribution, row.measure), {})[row.under] = row
        rows: list[Row] = []
        for (attribution, measure), under in found.items():
            counts = ", ".join(dict.fromkeys(str(row.count) for row in under.values()))
            means = [_mean(under.get(condition)) for condition in conditions]
            rows.append((spaced(attribution), [Cell(spaced(measure)), *means, Cell(counts)]))
        groups += [page.Group(model.name, rows)] if rows else []
    caption = "Mean similarity of the explanation before and after (1: the same), with its 95 % interval."
    head = ["Explanation", "Similarity", *(f"under {condition}" for condition in conditions), "Samples"]
    return Table(caption, head, words=(0,), groups=groups)


def _mean(row: MapSimilarity | None) -> Cell:
    return Cell(missing()) if row is None else ranged(row, ".2f")


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
    low, high = gradient_limits(arrays)
    found = [arrays.get(f"{name}_{model}", np.zeros(0)) for name in ("gradient_norms", "next_gradient_norms")]
    below = float(np.mean(found[0] < 10.0**low)) if len(found[0]) else 0.0

    def finish(axes: Axes) -> None:
        if below > 0:
            axes.bar(low - 0.45, below, 0.5, facecolor="none", edgecolor=MUTED, hatch="////", linewidth=0.8)
            axes.annotate(
                f"{percent(below)} below", (low - 0.15, 1.0), (3, 0), xycoords=("data", "axes fraction"),
                textcoords="offset points", va="top", color=INK,
            )  # fmt: skip
        axes.set_xlim(low - 0.8, high)
        ticks = range(low, high + 1, max(1, (high - low) // 4))
        axes.set_xticks(list(ticks), [number(10.0**tick).removeprefix("1·") for tick in ticks])

    logs = [np.log10(np.maximum(norms, 10.0 ** (low - 1))) for norms in found]
    return _histograms(logs, np.linspace(low, high, 4 * (high - low) + 1), finish, title)


def confidences(arrays: Arrays, model: int, title: str = "") -> str | None:
    """The distribution of a model's top probability, clean (filled) and under attack (line), as SVG."""
    found = [arrays.get(f"confidence_{state}_{model}", np.zeros(0)) for state in ("clean", "adversarial")]

    def finish(axes: Axes) -> None:
        axes.set_xlim(0, 1.005)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])

    return _histograms(found, np.linspace(0.0, 1.0, 26), finish, title)


def _histograms(found: list[Array], bins: Array, finish: Callable[[Axes], None], title: str) -> str | None:
    """The shares of two sets of values in bins: the first filled, the second as a line; None without the first."""
    looks: tuple[dict[str, Any], ...] = ({"fill": True, "alpha": 0.35, "linewidth": 0}, {"linewidth": 1.5})

    def draw(axes: Axes) -> None:
        for values, color, look in zip(found, SERIES, looks):
            if len(values):
                axes.stairs(np.histogram(values, bins)[0] / len(values), bins, color=color, **look)
        finish(axes)
        axes.set_ylim(0, max(0.05, 1.05 * axes.dataLim.y1))
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=3, pad=3)

    return plot(draw, title, (350, 108), (14, 24, 18, 8)) if len(found[0]) else None


SECTION = ReportSection(
    90,
    "gradients",
    "Gradients",
    "Gradients, confidences, explanations",
    "models.gradient_norm models.confidence models.explanations",
    blocks,
)
