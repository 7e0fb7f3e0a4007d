"""A grid of pictures: the gallery of one model as a single figure, for a paper or a notebook."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from steadygrad.errors import UsageError
from steadygrad.report import png
from steadygrad.report.png import Array, Arrays
from steadygrad.report.samples import planes, scale
from steadygrad.report.style import drawing, svg
from steadygrad.report.wording import number, percent, spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from steadygrad.audit.schema import PicturedSample, Summary

__all__ = ["picture_grid"]


def picture_grid(summary: Summary, arrays: Arrays, model: int = 0) -> str:
    """The samples of one model as SVG: clean, perturbed, perturbation, each attribution before and after.

    Raises:
        UsageError: the summary has no gallery for this model.
    """
    from matplotlib.figure import Figure

    name, found = summary.models[model].name, summary.gallery
    rows = found.models.get(name) if found is not None else None
    if found is None or not rows:
        raise UsageError(f"the summary has no gallery for {name!r}: audit it with at least one gallery sample")
    titles = ["clean", "perturbed", f"perturbation\n±{number(scale(arrays, model))}"]
    for attribution in found.attributions:
        titles += [textwrap.fill(spaced(attribution), 13) + f"\n{when}" for when in ("before", "after")]
    with drawing(9.0):
        figure = Figure(figsize=(1.15 * len(titles), 1.4 * len(rows) + 0.5), layout="constrained")
        axes = figure.subplots(len(rows), len(titles), squeeze=False)
        for place, row in enumerate(rows):
            _row(list(axes[place]), summary, arrays, model, place, row)
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title, fontsize=9)
        return svg(figure, f"{name}: {len(rows)} samples before and after the attack")


def _row(axes: list[Axes], summary: Summary, arrays: Arrays, model: int, place: int, row: PicturedSample) -> None:
    low, high = summary.threat.bounds
    clean, adversarial = (planes(arrays[f"{state}_{model}"][place], 3) for state in ("clean", "adversarial"))
    top = scale(arrays, model)
    _show(axes[0], clean, low, high, "gray")
    _show(axes[1], adversarial, low, high, "gray")
    _show(axes[2], adversarial - clean, -(top or 1.0), top or 1.0, png.CHANGE)
    for ax, state in zip(axes, ("clean", "adversarial"), strict=False):
        ax.set_xlabel(f"{getattr(row, f'{state}_prediction')} · {percent(getattr(row, f'{state}_confidence'))}")
    for index in range((len(axes) - 3) // 2):
        maps = [planes(arrays[f"map_{state}_{model}_{index}"][place], 2) for state in ("clean", "adversarial")]
        most = max(float(values.max(initial=0.0)) for values in maps) or 1.0
        for ax, values in zip(axes[3 + 2 * index :], maps, strict=False):
            _show(ax, values[None], 0.0, most, png.MAP)


def _show(ax: Axes, values: Array, low: float, high: float, colors: str) -> None:
    # (C, H, W): color images as they are, all else by the color map.
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
    shown = np.moveaxis(scaled, 0, -1) if len(values) == 3 else scaled.mean(axis=0)
    ax.imshow(shown, cmap=colors, vmin=0.0, vmax=1.0, interpolation="none")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
