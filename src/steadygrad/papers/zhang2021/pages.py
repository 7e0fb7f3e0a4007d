"""The page: what neurons carry, how far they move, what attacks leave, and the images that move them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from steadygrad.papers.paper_page import share
from steadygrad.papers.store import Arrays
from steadygrad.papers.zhang2021.settings import LABELS
from steadygrad.report.blocks import Cell, Figure, Pictures, Section, Table
from steadygrad.report.png import Picture, image, tiled
from steadygrad.report.style import GRID, MARKERS, SERIES, drawing, drawn

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

__all__ = ["sections"]

_CHOICES = {"most": "most sensitive", "random": "random", "least": "least sensitive"}
_WAYS = {
    "patched": "at their benign values, adversarial input",
    "off": "at zero, adversarial input",
    "clean": "at zero, benign input",
}


def sections(summary: dict[str, Any], arrays: Arrays) -> list[Section]:
    """All sections of the page, from the summary and the arrays alone."""
    found = summary["results"]
    return [
        Section("What sensitive neurons carry", [_carried(found), _patched(found)]),
        Section("How far neurons move", [_curves(found), _changes(found), _spectra(found, arrays)]),
        Section("What attacks leave", [_robust(found)]),
        *([Section("What moves a neuron", [_movers(found, arrays)])] if "plain/movers/images" in arrays else []),
        Section("Settings", [_settings(summary)]),
    ]


def _carried(found: dict[str, Any]) -> Table:
    rows = []
    for name in found["models"]:
        row = found["rows"][name]
        values = row["restored"][row["best"]]
        cells = [Cell(row["best"]), Cell(f"{row['own']:.3g}"), share(row["fooled"])]
        for way in found["ways"]:
            cells += [share(v) if (v := values[f"{way}/{choice}"]) else Cell("–") for choice in found["choices"]]
        rows.append((LABELS[name], cells))
    head = ["Model", "Layer", "linf", "Fooled"]
    head += [f"{_CHOICES[choice]}, {_WAYS[way]}" for way in found["ways"] for choice in found["choices"]]
    return Table(
        f"Images that are right again (or still, for benign inputs), in percent of the fooled ones, with "
        f"{100 * found['share']:g} % of one layer's neurons held. Neurons and layer were chosen on held-out images; "
        f"random sets are averaged. {found['images']['pairs']:,} test images, each model within the radius that leaves "
        "it about 30 % (found on held-out images).",
        head,
        rows,
    )


def _patched(found: dict[str, Any]) -> Figure:
    def draw(axes: Axes, index: int) -> None:
        name = found["models"][index]
        for place, choice in enumerate(found["choices"]):
            values = [found["rows"][name]["restored"][layer][f"patched/{choice}"] for layer in found["layers"]]
            points = [(i, v) for i, v in enumerate(values) if v]
            if not points:
                continue
            axes.fill_between(
                [i for i, _ in points], [100 * v["low"] for _, v in points], [100 * v["high"] for _, v in points],
                color=SERIES[place], alpha=0.13, linewidth=0,
            )  # fmt: skip
            axes.plot(
                [i for i, _ in points], [100 * v["value"] for _, v in points],
                color=SERIES[place], marker=MARKERS[place], label=_CHOICES[choice],
            )  # fmt: skip
        axes.set_title(LABELS[name], loc="left", fontsize="medium")
        axes.set_xticks(range(len(found["layers"])), found["layers"])
        axes.set_ylim(0, 101)

    title = "Fooled images that are right again with neurons of one layer at their benign values, in percent, by layer."
    return Figure(_panels(len(found["models"]), draw, title, "layer"), title)


def _curves(found: dict[str, Any]) -> Figure:
    def draw(axes: Axes, index: int) -> None:
        for place, name in enumerate(found["models"]):
            row = found["rows"][name]
            values = [row["change"][la]["value"] if index == 0 else row["relative"][la] for la in found["layers"]]
            axes.plot(
                values, color=SERIES[place % len(SERIES)], marker=MARKERS[place], label=LABELS[name],
                linestyle="-" if place < len(SERIES) else "--",
            )  # fmt: skip
        axes.set_title(("mean change", "mean change / mean size")[index], loc="left", fontsize="medium")
        axes.set_xticks(range(len(found["layers"])), found["layers"])
        axes.set_ylim(0)

    title = "Mean sensitivity of each layer, and the same relative to the size of its benign activations."
    return Figure(_panels(2, draw, title, "layer"), title)


def _changes(found: dict[str, Any]) -> Table:
    rows = []
    for name in found["models"]:
        row = found["rows"][name]
        cells = []
        for layer in found["layers"]:
            value = row["change"][layer]
            low_high = f"[{value['low']:.3g}, {value['high']:.3g}]"
            cells += [Cell(f"{value['value']:.3g}", low_high), Cell(f"{row['relative'][layer]:.2f}")]
        rows.append((LABELS[name], cells))
    head = ["Model", *(t for layer in found["layers"] for t in (f"{layer} ({found['neurons'][layer]})", "relative"))]
    return Table(
        f"Mean sensitivity by layer (its neurons in brackets) on the pairs of each model's own attack, linf "
        f"{found['eps']:.3g}, first {found['images']['curves']:,} test images.",
        head,
        rows,
    )


def _spectra(found: dict[str, Any], arrays: Arrays) -> Figure:
    def draw(axes: Axes, index: int) -> None:
        layer = found["layers"][index]
        for place, name in enumerate(found["models"]):
            values = np.sort(arrays[f"{name}/{layer}/sigma"])[::-1]
            axes.plot(
                np.linspace(0, 100, len(values)), values, color=SERIES[place % len(SERIES)], label=LABELS[name],
                linewidth=1.4, linestyle="-" if place < len(SERIES) else "--",
            )  # fmt: skip
        axes.set_title(f"layer {layer}", loc="left", fontsize="medium")
        axes.set_ylim(0)

    title = "Sensitivity spectra: the neurons of each layer in falling order of their sensitivity."
    return Figure(_panels(len(found["layers"]), draw, title, "neurons, %"), title)


def _panels(count: int, draw: Any, title: str, label: str) -> Markup:
    """Panels side by side with one legend."""
    from matplotlib.figure import Figure as Canvas

    columns = min(count, 3)
    lines = -(-count // columns)
    with drawing(10.0):
        figure = Canvas(figsize=(10.4, 0.8 + 2.9 * lines), layout="constrained")
        panels = list(figure.subplots(lines, columns, squeeze=False).flat)
        for index, axes in enumerate(panels):
            if index >= count:
                axes.set_visible(False)
                continue
            draw(axes, index)
            axes.set_xlabel(label)
            axes.grid(color=GRID, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        handles = max((axes.get_legend_handles_labels() for axes in panels[:count]), key=lambda pair: len(pair[0]))
        figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False)
        return drawn(figure, title)


def _robust(found: dict[str, Any]) -> Table:
    rows = [
        (LABELS[name], [share(found["rows"][name][key]) for key in ("accuracy", "suite", "suite_trained")])
        for name in found["models"]
    ]
    return Table(
        f"Accuracy in percent: clean on {found['images']['accuracy']:,} test images; what no attack of the fast suite "
        f"changes on the first {found['images']['suite']:,}, within the radius at which the plain model keeps about "
        "30 % (found on held-out images), and within the radius of the training.",
        ["Model", "Clean", f"linf {found['radius']:.3g}", f"linf {found['eps']:.3g}"],
        rows,
    )


def _movers(found: dict[str, Any], arrays: Arrays) -> Pictures:
    rows = []
    for name in found["models"]:
        cells = []
        for what in ("images", "patches"):
            images = arrays[f"{name}/movers/{what}"][None]  # (1, K, C, h, w)
            gaps = np.zeros(images.shape[:2], dtype=bool)
            cells.append(Picture(image(tiled(images, gaps)), f"{what} that move a neuron of {LABELS[name]}"))
        rows.append((LABELS[name], cells))
    return Pictures(
        "The held-out adversarial images that move the most sensitive neuron of the last layer of maps most, and the "
        "pixels in them that act on the place where it moves most.",
        ["Model", "Images", "Patches"],
        rows,
        wide=True,
    )


def _settings(summary: dict[str, Any]) -> Table:
    rows = [
        (LABELS[name], [Cell(json.dumps(defense, ensure_ascii=False))])
        for name, defense in summary["config"]["defenses"].items()
    ]
    return Table("What each model was trained with.", ["Model", "Objective"], rows, words=(0,))
