"""A contact sheet: the gallery of one model as a single figure, for a paper or a notebook."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from steadygrad.errors import UsageError
from steadygrad.report import pixels
from steadygrad.report.gallery import name_of, picture, plane, scale
from steadygrad.report.reading import Array, Arrays, Summary
from steadygrad.report.style import drawing, svg
from steadygrad.report.wording import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["gallery"]


def gallery(summary: Summary, arrays: Arrays, model: int = 0) -> str:
    """The samples of one model as SVG: clean, perturbed, perturbation, each attribution before and after.

    Raises:
        UsageError: the summary has no gallery for this model.
    """
    from matplotlib.figure import Figure

    name = summary["models"][model]["name"]
    found = summary["gallery"]
    entries = found["models"].get(name, []) if found else []
    if not entries:
        raise UsageError(f"the summary has no gallery for {name!r}: audit it with at least one gallery sample")
    titles = ["clean", "perturbed", f"perturbation\n±{number(scale(arrays, model))}"]
    for attribution in found["attributions"]:
        titles += [textwrap.fill(f"{attribution}".replace("_", " "), 13) + f"\n{when}" for when in ("before", "after")]
    with drawing(9.0):
        figure = Figure(figsize=(1.15 * len(titles), 1.4 * len(entries) + 0.5), layout="constrained")
        axes = figure.subplots(len(entries), len(titles), squeeze=False)
        for row, entry in enumerate(entries):
            _row(list(axes[row]), summary, arrays, model, row, entry)
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title, fontsize=9)
        return svg(figure, f"{name}: {len(entries)} samples before and after the attack")


def _row(axes: list[Axes], summary: Summary, arrays: Arrays, model: int, row: int, entry: dict[str, Any]) -> None:
    low, high = summary["threat"]["bounds"]
    classes = summary["data"]["classes"]
    clean, adversarial = (picture(arrays[f"{state}_{model}"][row]) for state in ("clean", "adversarial"))
    top = scale(arrays, model)
    _show(axes[0], clean, low, high, "gray")
    _show(axes[1], adversarial, low, high, "gray")
    _show(axes[2], adversarial - clean, -(top or 1.0), top or 1.0, pixels.CHANGE)
    for ax, state in zip(axes, ("clean", "adversarial"), strict=False):
        prediction, confidence = entry[f"{state}_prediction"], entry[f"{state}_confidence"]
        ax.set_xlabel(f"{name_of(prediction, classes)} · {percent(confidence)}")
    for index in range((len(axes) - 3) // 2):
        maps = [plane(arrays[f"map_{state}_{model}_{index}"][row]) for state in ("clean", "adversarial")]
        most = max(float(values.max(initial=0.0)) for values in maps) or 1.0
        for ax, values in zip(axes[3 + 2 * index :], maps, strict=False):
            _show(ax, values[None], 0.0, most, pixels.MAP)


def _show(ax: Axes, values: Array, low: float, high: float, colors: str) -> None:
    # (C, H, W): color images as they are, all else by the color map.
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
    shown = np.moveaxis(scaled, 0, -1) if len(values) == 3 else scaled.mean(axis=0)
    ax.imshow(shown, cmap=colors, vmin=0.0, vmax=1.0, interpolation="none")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
