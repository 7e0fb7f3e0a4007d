"""The figures: curves against epsilon, training curves, box plots of norms, histograms of log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from steadygrad.papers.ross2018.settings import LABELS
from steadygrad.papers.store import Arrays
from steadygrad.report.style import GRID, MARKERS, MUTED, SERIES, drawing, drawn, logarithmic

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

__all__ = ["log_probabilities", "norms", "own_curves", "training", "transfer_curves"]

OWN = "Accuracy on examples made on the model itself, against ε. Thin dashed lines are the paper's."
TRANSFER = "Accuracy of every model on examples made on one of them, against ε; thin dashed lines are the paper's."
TRAINING = (
    "Accuracy on 256 validation images at every checkpoint: solid under the model's own FGSM at ε .2, dotted clean."
)
NORMS = (
    "ℓ2 norm of the input gradient on a logarithmic axis: box from the lower to the upper quartile, whiskers "
    "from the 5 % "
    "to the 95 % quantile. Upper box of each pair: the label; lower one: the class after it."
)
LOGS = "Log-probabilities of clean test images: filled the label's, line all other classes'. Heights are shares."


def own_curves(found: dict[str, Any]) -> Markup:
    """Accuracy of each model on its own examples, FGSM and TGSM."""
    from matplotlib.figure import Figure

    with drawing(11.0):
        figure = Figure(figsize=(10.4, 4.2), layout="constrained")
        for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("fgsm", "tgsm")):
            for index, name in enumerate(found["models"]):
                _line(axes, found, kind, name, name, index)
            _dress(axes, kind.upper(), found["epsilons"])
        figure.axes[0].set_ylabel("accuracy, %")
        _legend(figure, found["models"])
        return drawn(figure, "Accuracy on own examples against epsilon")


def transfer_curves(found: dict[str, Any], kind: str) -> Markup:
    """One panel per source: accuracy of all models on its examples."""
    from matplotlib.figure import Figure

    names = found["models"]
    with drawing(10.0):
        figure = Figure(figsize=(10.4, 6.4), layout="constrained")
        for axes, source in zip(figure.subplots(2, 3, sharex=True, sharey=True).flat, names):
            for index, judged in enumerate(names):
                _line(axes, found, kind, source, judged, index)
            _dress(axes, f"made on {LABELS[source]}", found["epsilons"])
        _legend(figure, names)
        return drawn(figure, f"{kind.upper()}: transfer between the models against epsilon")


def _line(axes: Axes, found: dict[str, Any], kind: str, source: str, judged: str, index: int) -> None:
    color = SERIES[index % len(SERIES)]
    points = found["transfer"][kind][source]
    clean = found["clean"][judged]["value"]
    eps = [0.0, *found["epsilons"]]
    values = [100 * clean, *(100 * points[f"{e:g}"][judged]["value"] for e in found["epsilons"])]
    axes.plot(eps, values, color=color, marker=MARKERS[index], markersize=4.5, linewidth=1.6, label=LABELS[judged])
    theirs = found["published"]["transfer"].get(kind, {}).get(source, {})
    there = sorted((float(e), row[judged]) for e, row in theirs.items() if judged in row)
    there = [(e, v) for e, v in there if e <= eps[-1] + 1e-9]
    if there:
        axes.plot([e for e, _ in there], [100 * v for _, v in there], color=color, linewidth=0.8, linestyle=(0, (4, 3)))


def _dress(axes: Axes, title: str, epsilons: list[float]) -> None:
    axes.set_title(title, fontsize="medium")
    axes.set_ylim(0, 101)
    axes.set_xlim(0, max(epsilons))
    axes.set_xlabel("ε")
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Any, names: list[str]) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles[: len(names)], labels[: len(names)], loc="outside lower center", ncols=3, frameon=False)


def training(found: dict[str, Any]) -> Markup:
    """Accuracy under FGSM and clean against the steps of training."""
    from matplotlib.figure import Figure

    with drawing(11.0):
        figure = Figure(figsize=(10.4, 4.0), layout="constrained")
        axes = figure.subplots()
        for index, name in enumerate(found["models"]):
            rows = found["curves"][name]
            steps = [row["step"] for row in rows]
            color = SERIES[index % len(SERIES)]
            style: dict[str, Any] = {"color": color, "marker": MARKERS[index], "markersize": 4}
            axes.plot(steps, [100 * r["fgsm"] for r in rows], label=LABELS[name], linewidth=1.6, **style)
            axes.plot(steps, [100 * r["clean"] for r in rows], linewidth=0.9, linestyle=":", color=color)
        axes.set_xlabel("steps")
        axes.set_ylabel("validation accuracy, %")
        axes.set_ylim(0, 101)
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        _legend(figure, found["models"])
        return drawn(figure, "Validation accuracy during training, clean and under FGSM")


def norms(arrays: Arrays, names: list[str]) -> Markup:
    """Box plots of the gradient norms, two per model."""
    from matplotlib.figure import Figure

    everything = np.concatenate([arrays[f"{n}/{k}"] for n in names for k in ("label", "next")])
    floor = 10.0 ** max(-12.0, np.floor(np.log10(max(everything[everything > 0].min(initial=1.0), 1e-12))))
    with drawing(11.0):
        figure = Figure(figsize=(10.4, 0.6 * len(names) + 0.9), layout="constrained")
        axes = figure.subplots()
        for row, name in enumerate(names):
            for shift, key in ((-0.17, "label"), (0.17, "next")):
                values = np.maximum(arrays[f"{name}/{key}"], floor)
                box = axes.boxplot(
                    values,
                    positions=[row + shift],
                    orientation="horizontal",
                    widths=0.26,
                    whis=(5, 95),
                    showfliers=False,
                )
                for part in (*box["boxes"], *box["whiskers"], *box["caps"], *box["medians"]):
                    part.set_color(SERIES[0] if key == "label" else SERIES[1])
        axes.set_yticks(range(len(names)), [LABELS[n] for n in names])
        axes.invert_yaxis()
        logarithmic(axes, "x")
        axes.set_xlabel(f"norm of the input gradient (smaller ones stand at {floor:.0e})")
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        return drawn(figure, "Norms of the input gradients, for the label and for the class after it")


def log_probabilities(arrays: Arrays, names: list[str]) -> Markup:
    """Histograms of the log-probabilities of the label and of all other classes."""
    from matplotlib.figure import Figure

    labels = arrays["labels"]
    low = -60.0
    bins = np.linspace(low, 0.0, 61)
    with drawing(10.0):
        figure = Figure(figsize=(10.4, 4.4), layout="constrained")
        for axes, name in zip(figure.subplots(2, 3, sharex=True, sharey=True).flat, names):
            logs = np.maximum(arrays[f"{name}/log_probabilities"], low)
            mask = np.zeros(logs.shape, dtype=bool)
            mask[np.arange(len(logs)), labels] = True
            for values, kind, color in ((logs[mask], "stepfilled", SERIES[0]), (logs[~mask], "step", SERIES[1])):
                weights = np.full(len(values), 1 / max(1, len(values)))
                axes.hist(values, bins, weights=weights, histtype=kind, color=color, alpha=0.6 if kind != "step" else 1)
            axes.set_title(LABELS[name], fontsize="medium")
            logarithmic(axes, "y")
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(colors=MUTED)
        figure.supxlabel(f"log-probability; all below {low:g} stand in the first bar", fontsize="medium")
        return drawn(figure, "Log-probabilities of the label and of the other classes")
