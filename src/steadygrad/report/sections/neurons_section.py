"""Which neurons an attack moves: how far layers move, and what holding a few neurons restores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from steadygrad.report import blocks as page
from steadygrad.report.blocks import Block, Cell, Inline, Row, Table, Text, html, legend, missing, small
from steadygrad.report.cells import DASH, ranged, share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.style import INK, MARKERS, SERIES, bare, inline, plot
from steadygrad.report.terminal import listed
from steadygrad.report.wording import NOT_MEASURED, number, percent, threat

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table as RichTable

    from steadygrad.audit.schema_maps import Choice, Layer, ModelNeurons, Neurons
    from steadygrad.audit.schema_values import Estimate, Mean

CHOICES: dict[Choice, str] = {"most": "the most sensitive", "random": "random ones", "least": "the least sensitive"}
_LABELED = 8
_MARGINS = (40, 44, 16, 26)


def blocks(run: Run) -> list[Block]:
    """Two figures per model, and a table of all layers."""
    found = run.summary.neurons
    if found is None:
        return []
    drawn = [(name, [(inline(figure), "") for figure in pair]) for name, *pair in figures(found)]
    choices = [legend("swatch", words, f"var(--series-{place})") for place, words in enumerate(CHOICES.values())]
    key = html(
        "<b>Left:</b> mean change of a layer’s output over its mean size, on one scale for all models. <b>Right:</b> "
        "right again with neurons held: {}. Lines are 95 % intervals.",
        Markup(" &nbsp; ").join(choices),
    )
    shown: list[Block] = [page.Items([key], "keys"), page.Panels(drawn)] if drawn else []
    return [
        Text(
            "Sensitivity of a neuron: how far its output moves between a sample and its adversarial partner "
            f"({found.attack}, {threat(found.threat)}), on the first {found.samples:,} samples of the draw. Does "
            f"moving these neurons matter? In each layer {percent(found.share)} of them, rounded up, are held at what "
            "they were for the clean sample while the model sees the adversarial one, and the samples that the attack "
            "had turned are counted that are right again. Sensitive neurons are chosen on one half of the samples, and "
            "held on the other."
        ),
        *shown,
        _table(found),
        Text(
            "A calm layer is no proof of robustness, and a neuron that is never on does not move either: robust "
            "accuracy decides. Sensitivities belong to this attack and this radius.",
            "note",
        ),
    ]


def _table(found: Neurons) -> Table:
    return Table(
        "Layers in the order of the network, below each its most sensitive neurons by index. Change: mean sensitivity "
        "over the mean size of the output; below it the sensitivity alone, whose unit is the activation’s. Then the "
        "share of the judged samples that are right again with neurons held, with Wilson’s interval; random neurons "
        f"are the mean of {found.draws} draws. Gain: most sensitive minus random, paired by sample, in points.",
        ["Layer", "Neurons", "Change", "Most held", "Random held", "Least held", "Gain"],
        groups=[_group(name, model, found.samples) for name, model in found.models.items()],
        style="stacked",
    )


def _group(name: str, model: ModelNeurons, samples: int) -> page.Group:
    if model.refused is not None:
        words = html("{} {}", missing("not measured:"), model.refused)
        return page.Group(name, [("", [Cell(words, span=6, kind="words")])])
    rows: list[Row] = []
    for place, layer in enumerate(model.layers):
        first = f"{place + 1}. {layer.name}" if numbered(model.layers) else layer.name
        indices = ", ".join(str(neuron.neuron) for neuron in layer.most)
        change = number(layer.change.value)
        relative = Cell(missing("–"), note=change) if layer.relative is None else ranged(layer.relative, note=change)
        cells, held = [Cell(f"{layer.neurons:,}", note=f"{layer.held:,} held"), relative], layer.restored
        cells += [DASH] * 3 if held is None else [share(held[choice]) for choice in CHOICES]
        cells.append(ranged(layer.gain, "+.1f", 100))
        rows.append((html("{}<br>{}", first, small(indices)), cells))
    turned = f"{model.fooled:,} of {samples:,} samples turned by the attack, {model.judged:,} of them judged"
    return page.Group(html("{} {}", name, small(turned)), rows)


def terminal(run: Run) -> RichTable | None:
    """The layers of every model, and the shares that holding a few neurons restores."""
    if run.summary.neurons is None:
        return None
    rows: list[list[Inline | Cell]] = []
    for name, model in run.summary.neurons.models.items():
        if model.refused is not None:
            rows.append([name, NOT_MEASURED, "", "", ""])
        for layer in model.layers:
            held = [share(layer.restored[choice] if layer.restored else None) for choice in ("most", "random")]
            relative = number(layer.relative.value) if layer.relative is not None else "silent"
            rows.append([name, layer.name, relative, *held])
    title = "Neurons under attack; with a few held, the turned samples right again"
    return listed(["model", "layer", "change / size", "most sensitive held", "random held"], rows, title)


def figures(found: Neurons) -> list[tuple[str, str, str]]:
    """By model with layers: its name, the change of its layers, and what holding neurons restores, as SVG."""
    moved = [layer.relative for row in found.models.values() for layer in row.layers if layer.relative is not None]
    top = 1.08 * max((value.high for value in moved), default=1.0)
    rows = [(name, row.layers) for name, row in found.models.items() if row.layers]
    return [(name, _change(name, layers, top), _restored(name, layers)) for name, layers in rows]


def numbered(layers: Sequence[Layer]) -> bool:
    """Whether layers have numbers, on the axis and in the table: long names would run into each other."""
    return max((len(layer.name) for layer in layers), default=0) > 6


def _change(name: str, layers: Sequence[Layer], top: float) -> str:
    """The mean change of each layer over its mean size, on the scale of all models."""

    def draw(axes: Axes) -> None:
        _prepare(axes, layers, "change / size of the output")
        _line(axes, [layer.relative for layer in layers], 0, 1.0)
        axes.set_ylim(0, top or 1.0)
        axes.locator_params(axis="y", nbins=5)

    moved = [f"{row.name} {number(row.relative.value)}" for row in layers if row.relative is not None]
    ends = " to ".join(moved[:1] + moved[1:][-1:])
    return plot(draw, f"{name}: change of each layer over the size of its output. {ends}.", margins=_MARGINS)


def _restored(name: str, layers: Sequence[Layer]) -> str:
    """The share of fooled samples that are right again, for the three choices of neurons."""

    def draw(axes: Axes) -> None:
        _prepare(axes, layers, "right again, %")
        for place, choice in enumerate(CHOICES):
            _line(axes, [layer.restored[choice] if layer.restored else None for layer in layers], place, 100.0)
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 25, 50, 75, 100])

    return plot(draw, f"{name}: right again with neurons held. {_best(layers)}.", margins=_MARGINS)


def _best(layers: Sequence[Layer]) -> str:
    judged = [(layer.name, layer.restored) for layer in layers if layer.restored is not None]
    if not judged:
        return "No sample was turned, so none could come back"
    name, held = max(judged, key=lambda pair: pair[1]["most"].value)
    parts = [f"{words} {percent(held[choice].value)}" for choice, words in CHOICES.items()]
    return f"At best, in layer {name}: {', '.join(parts)}"


def _prepare(axes: Axes, layers: Sequence[Layer], title: str) -> None:
    step = max(1, -(-len(layers) // _LABELED))
    places = range(0, len(layers), step)
    labels = [str(place + 1) if numbered(layers) else layers[place].name for place in places]
    axes.set_xticks(list(places), labels)
    axes.set_xlim(-0.4, len(layers) - 0.6)
    axes.set_xlabel("layer")
    axes.set_title(title, loc="left", fontsize="medium", color=INK, x=-0.02)
    bare(axes)


def _line(axes: Axes, values: Sequence[Estimate | Mean | None], series: int, scale: float) -> None:
    points = [(place, value) for place, value in enumerate(values) if value is not None]
    x = [place + 0.06 * (series - 1) for place, _ in points]
    middle, low, high = ([scale * getattr(value, key) for _, value in points] for key in ("value", "low", "high"))
    axes.vlines(x, low, high, color=SERIES[series], linewidth=1.2, alpha=0.6)
    axes.plot(
        x, middle, color=SERIES[series], linewidth=1.4, marker=MARKERS[series], markersize=5, clip_on=False, zorder=3
    )


SECTION = ReportSection(110, "neurons", "Neurons", "Which neurons the attack moves", "neurons", blocks, terminal)
