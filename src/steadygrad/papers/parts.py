"""Cells, tables and figures that the pages of several papers share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from steadygrad.measuring.statistics import Estimate, newcombe
from steadygrad.papers.search import Search
from steadygrad.papers.study import Study
from steadygrad.report.blocks import Block, Cell, Figure, Table
from steadygrad.report.png import Array, Picture, change, image, tiled
from steadygrad.report.style import GRID, MARKERS, SERIES, drawing, drawn
from steadygrad.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = tuple[Sequence[float], Sequence[float]]
"""The x and the y of a line."""


def fixed(found: Estimate | None, digits: int = 3, scale: float = 1.0, sign: str = "", **more: Any) -> Cell:
    """A cell with a value and its interval, with so many decimals; a dash for None.

    >>> fixed(Estimate(0.5, 0.25, 0.75), 2).below
    '[0.25, 0.75]'
    """
    if found is None:
        return Cell("–", **more)
    value, low, high = (f"{scale * v:{sign}.{digits}f}" for v in (found.value, found.low, found.high))
    return Cell(value, f"[{low}, {high}]", **more)


def percent(found: Estimate | None, digits: int = 1, **more: Any) -> Cell:
    """A cell with a share in percent and its interval."""
    return fixed(found, digits, 100, **more)


def against(ours: Estimate, theirs: float | None, count: int, digits: tuple[int, int, int] = (1, 1, 1)) -> list[Cell]:
    """Three cells of shares in percent: ours, the paper's on `count` samples, and the difference in points.

    `digits` are the decimals of the three.
    """
    cell = Cell(f"{100 * theirs:.{digits[1]}f}" if theirs is not None else "–")
    difference = newcombe(ours, theirs, count) if theirs is not None else None
    return [percent(ours, digits[0]), cell, fixed(difference, digits[2], 100, "+")]


def cells_of(value: Any) -> list[Cell]:
    """The cells of a value: several of a list; estimates are shares in percent, numbers keep three digits.

    >>> [cell.text for cell in cells_of([Estimate(0.5, 0.25, 0.75), "yes", 0.12345, None])]
    ['50.0', 'yes', '0.123', '–']
    """
    if isinstance(value, list):
        return [cell for part in value for cell in cells_of(part)]
    if isinstance(value, Cell):
        return [value]
    if isinstance(value, Estimate):
        return [percent(value)]
    return [Cell(value if isinstance(value, str) else number(value))]


@dataclass(frozen=True)
class Rows:
    """What was found of each model (or of other things that have labels): tables, lines and main figures of all.

    >>> found = Rows({"plain": "plain"}, {"plain": {"accuracy": Estimate(0.5, 0.25, 0.75)}})
    >>> found.table("Accuracy.", {"Accuracy": "accuracy"}).rows[0][1][0].text
    '50.0'
    """

    labels: Mapping[Any, str]
    found: Mapping[Any, Any]

    def table(
        self,
        caption: str,
        columns: Mapping[Any, Hashable | Callable[[Any], Any]],
        first: str = "Model",
        words: Sequence[int] = (),
    ) -> Table:
        """A row for each; `columns` are headings with a key of the row, or a function from the name to `cells_of`."""
        heads = [text for head in columns for text in ([head] if isinstance(head, str) else head)]

        def cells(name: Any) -> list[Cell]:
            return cells_of([of(name) if callable(of) else self.found[name][of] for of in columns.values()])

        return Table(caption, [first, *heads], [(self.labels[name], cells(name)) for name in self.found], words=words)

    def lines(
        self,
        titles: Sequence[str],
        curve: Callable[[int, Any], Points],
        caption: str,
        x: str,
        y: str = "",
        *,
        thin: Callable[[int, Any], Points] | None = None,
        dashes: Any = (0, (4, 3)),
        ticks: Sequence[str] = (),
        limits: Mapping[str, Any],
        marks: bool = True,
        **layout: Any,
    ) -> Figure:
        """Panels with a line for each: `curve(panel, name)` gives its x and y, and `thin` those of a thin one."""
        style: dict[str, Any] = {} if marks else {"marker": ""}

        def draw(axes: Axes, panel: int) -> None:
            for place, name in enumerate(self.found):
                line(axes, place, *curve(panel, name), self.labels[name], **style)
                points = thin(panel, name) if thin else ((), ())
                if len(points[0]):
                    line(axes, place, *points, marker="", linewidth=0.8, linestyle=dashes)
            if ticks:
                axes.set_xticks(range(len(ticks)), ticks)
            axes.set(**limits)

        return panels(titles, draw, caption, x, y, **layout)

    def headline(self, **figures: tuple[str, str]) -> dict[str, tuple[Estimate, str]]:
        """The main figures: by a key of the rows, what it is called and its unit."""
        return {
            f"{self.labels[name]}: {text}": (row[key], unit)
            for name, row in self.found.items()
            for key, (text, unit) in figures.items()
        }


def settings_table(labels: Mapping[str, str], ways: Mapping[str, Mapping[str, Any]]) -> Table:
    """What each model was trained with, from the plain data of its training."""
    keys = ("epochs", "batch_size", "optimizer", "lr", "schedule", "weight_decay")
    rows = []
    for name, way in ways.items():
        defense = ", ".join(f"{k} = {v}" for k, v in way["defense"].items() if k != "name")
        training = ", ".join(f"{k} = {way['training'][k]}" for k in keys)
        rows.append((labels[name], [Cell(f"{way['defense']['name']}: {defense}"), Cell(training)]))
    return Table("What each method was trained with.", ["Model", "Objective", "Training"], rows, words=(0, 1))


def searched_tables(
    found: Mapping[str, Search[Any]],
    labels: Mapping[str, str],
    *,
    score: str,
    shown: Callable[[float], str],
    settings: Callable[[Any], str] = str,
) -> list[Block]:
    """A table of all candidates of a search, the chosen ones ticked; none where nothing was searched."""
    if not found:
        return []
    rows = []
    for name, tried in found.items():
        for row in tried.rows:
            chosen = Cell(settings(row.settings), good=True if row is tried.chosen else None)
            rows.append((labels[name], [chosen, Cell(f"{100 * row.accuracy:.2f}"), Cell(shown(row.score))]))
    rule = next(iter(found.values())).rule
    caption = (
        f"The search on held-out training data. ✓ is what was chosen: the best {score} among the candidates that lose "
        f"at most {100 * rule.allowed:g} points of the {100 * rule.accuracy:.2f} % of the model without a defense."
    )
    return [Table(caption, ["Model", "Settings", "Accuracy, %", score], rows, words=(0,))]


def strip(images: Array, alt: str) -> Picture:
    """Images (K, C, H, W) in [0, 1] side by side as one picture."""
    return Picture(image(tiled(images[None], np.zeros((1, len(images)), dtype=bool))), alt)


def signed_strip(maps: Array, alt: str) -> Picture:
    """Maps (K, C, H, W) side by side: sums over the channels, each by its largest value, red above zero."""
    summed = maps.sum(1, keepdims=True)  # (K, 1, H, W)
    largest = np.abs(summed).max((1, 2, 3), keepdims=True)
    apart = np.pad(summed / np.where(largest > 0, largest, 1), ((0, 0), (0, 0), (0, 0), (0, 2)))
    return Picture(change(np.concatenate(list(apart), axis=2), 1.0), alt)


def line(axes: Axes, index: int, x: Sequence[float], y: Sequence[float], label: str | None = None, **more: Any) -> None:
    """Draw a series in the color and with the marker of its place; more series than colors are dashed."""
    style = {"marker": MARKERS[index % len(MARKERS)], "markersize": 4.5, "linewidth": 1.6}
    style["linestyle"] = "-" if index < len(SERIES) else "--"
    axes.plot(x, y, label=label, **{"color": SERIES[index % len(SERIES)], **style, **more})


def panels(
    titles: Sequence[str],
    draw: Callable[[Axes, int], None],
    caption: str,
    x: str,
    y: str = "",
    *,
    columns: int = 3,
    height: float = 2.9,
    shared: bool = False,
) -> Figure:
    """A figure of panels with one legend, and with shared axes if asked for; `draw(axes, index)` fills each."""
    from matplotlib.figure import Figure as Canvas

    columns = min(len(titles), columns)
    rows = -(-len(titles) // columns)
    with drawing(10.0 if columns > 1 else 11.0):
        figure = Canvas(figsize=(10.4, 0.8 + height * rows), layout="constrained")
        every = list(figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).flat)
        for index, axes in enumerate(every):
            if index >= len(titles):
                axes.set_visible(False)
                continue
            draw(axes, index)
            axes.set_title(titles[index], loc="left", fontsize="medium")
            axes.set_xlabel(x)
            if index % columns == 0:
                axes.set_ylabel(y)
            axes.grid(color=GRID, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = max((axes.get_legend_handles_labels() for axes in every), key=lambda pair: len(pair[0]))
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        return Figure(drawn(figure, caption), caption)


def equally_long(study: Study, model: str = "plain") -> str:
    """The sentence on trainings of equally many epochs, for what is left out."""
    settings = study["recipe"][model]["training"]
    return (
        f"All models: {settings['epochs']} epochs of {study.size('train'):,} samples with Adam at {settings['lr']:g}; "
        "equally many steps, but not equally many passes."
    )
