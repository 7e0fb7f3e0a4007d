"""The page: counts of violations, attacks beside bounds, rank agreement, and maps before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from steadygrad.papers.page import Block, Cell, Figure, Pictures, Section, Table, Text, drawn, picture, share
from steadygrad.papers.page import signed_picture as colored
from steadygrad.papers.store import Arrays
from steadygrad.papers.wang2023.settings import LABELS
from steadygrad.report.style import GRID, MARKERS, MUTED, SERIES, drawing, logarithmic
from steadygrad.report.wording import budget, number

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["sections"]

_NORMS = {"linf": "ℓ∞", "l2": "ℓ2"}
_DRAWN = 60  # images of each model in the scatter plot
_WORDS = (
    "An attack shows what can happen; the linearized bound holds for the tangent of the map; the certified one for "
    "every allowed input. All points of all attacks are compared with both bounds, in Euclidean distance and in "
    "1 − cosine of the signed maps."
)


def sections(summary: dict[str, Any], arrays: Arrays) -> list[Section]:
    """All sections of the page, from the summary and the arrays alone."""
    found = summary["results"]
    return [
        Section("Attacks against bounds", [Text(_WORDS), _counts(found), _remainders(found), _clean(found)]),
        Section(
            "How sharp the bounds are",
            [*(_scatter(found, arrays, name) for name in found["maps"])],
            [(f"{name}: medians", [_medians(found, name), _cosines(found, name)]) for name in found["maps"]],
        ),
        Section("Which attack comes furthest", [_by_attack(found, name) for name in found["maps"]]),
        Section("Rank agreement", [_agreement(found), _across(found)]),
        Section("Maps", [_pictures(found, arrays)]),
    ]


def _counts(found: dict[str, Any]) -> Table:
    counts = found["counts"]
    beyond = counts["beyond"]
    kinds = [
        (f"beyond the {kind} bound, {label}", [Cell(f"{beyond[kind][d]:,}"), Cell(paper)])
        for kind, paper in (("certified", "–"), ("linearized", "none"))
        for d, label in (("euclidean", "Euclidean"), ("cosine", "cosine"))
    ]
    rows = [
        ("points tried", [Cell(f"{counts['tried']:,}"), Cell("–")]),
        (
            "of these, inside the threat with an unchanged prediction",
            [Cell(f"{counts['kept']:,}"), Cell("> 10 million")],
        ),
        *kinds,
        ("of the linearized: not explained by the remainder", [Cell(f"{counts['unexplained']:,}"), Cell("–")]),
    ]
    return Table(
        "Points and violations, ours and as the paper states. A point is one iterate of one restart of one attack on "
        "one image of one model, map and threat.",
        ["", "Ours", "Paper"],
        rows,
    )


def _remainders(found: dict[str, Any]) -> Text:
    shares = np.array(found["counts"]["excess_over_remainder"])
    total = int(shares.sum())
    if not total:
        return Text("No point exceeds the linearized Euclidean bound.")
    inner, edges = shares[:-1], np.arange(len(shares) - 1) / (len(shares) - 1)
    middle = edges[min(int(np.searchsorted(np.cumsum(inner), inner.sum() / 2)), len(edges) - 1)] + 0.5 / len(edges)
    return Text(
        f"{total:,} points exceed the linearized Euclidean bound. Their excess over it is at most the remainder "
        "‖g(x+δ) − g(x) − Jδ‖ wherever the bound holds for the tangent; measured, the excess is about "
        f"{100 * middle:.0f} % of the remainder in the median (bins of 5 %), and above it for {int(shares[-1]):,} "
        "points."
    )


def _clean(found: dict[str, Any]) -> Table:
    rows = [(LABELS[name], [share(found["clean"][name])]) for name in found["models"]]
    return Table(
        f"Accuracy on clean test images, in percent. Adversarial points of the trainings lie within ℓ∞ "
        f"{budget(found['training_radius'])}.",
        ["Model", "Accuracy"],
        rows,
    )


def _threat(row: dict[str, Any]) -> str:
    return f"{_NORMS[row['norm']]} {number(row['eps'])}"


def _of(found: dict[str, Any], name: str) -> list[tuple[int, dict[str, Any]]]:
    return [(i, row) for i, row in enumerate(found["cells"]) if row["map"] == name]


def _scatter(found: dict[str, Any], arrays: Arrays, name: str) -> Figure:
    return Figure(
        _drawing(found, arrays, name),
        f"{name.capitalize()}: the strongest attack on an image against the bound on it, Euclidean distance; filled "
        "linearized, hollow certified. Below the line an attack exceeds the bound, which the certified one rules out.",
    )


def _drawing(found: dict[str, Any], arrays: Arrays, name: str) -> Markup:
    from matplotlib.figure import Figure as Canvas

    cells = _of(found, name)
    threats = list(dict.fromkeys(_threat(row) for _, row in cells))
    with drawing(10.0):
        lines = -(-len(threats) // 2)
        figure = Canvas(figsize=(10.4, 4.5 * lines), layout="constrained")
        for axes, threat in zip(figure.subplots(lines, 2, squeeze=False).flat, threats):
            here = [(i, row) for i, row in cells if _threat(row) == threat]
            ends = []
            for order, (index, row) in enumerate(here):
                reached = arrays[f"{index}/strongest"][:_DRAWN]
                for kind in ("linearized", "certified"):
                    bound = arrays[f"{index}/{kind}"][:_DRAWN]
                    good = (reached > 0) & (bound > 0)
                    ends += [reached[good], bound[good]]
                    color = SERIES[order % len(SERIES)]
                    axes.plot(
                        reached[good], bound[good], linestyle="none", marker=MARKERS[order], markersize=3.5,
                        color=color, markerfacecolor=color if kind == "linearized" else "none", markeredgewidth=0.7,
                        label=LABELS[row["model"]] if kind == "linearized" else None,
                    )  # fmt: skip
            every = np.concatenate(ends)
            line = [every.min(), every.max()] if len(every) else [0.1, 1.0]
            axes.plot(line, line, color=MUTED, linewidth=0.9)
            logarithmic(axes, "x", "y")
            axes.set(xlabel="strongest attack", ylabel="bound")
            axes.set_title(threat, fontsize="medium")
            axes.grid(color=GRID, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        return drawn(figure, f"{name}: bounds against the strongest attack")


def _medians(found: dict[str, Any], name: str) -> Table:
    rows = []
    for _, row in _of(found, name):
        ratios = [_ratio(row["ratio"][kind]) for kind in ("linearized", "certified")]
        values = [Cell(number(row[k])) for k in ("length", "noise", "attack", "tangent", "linearized", "certified")]
        rows.append((f"{LABELS[row['model']]}, {_threat(row)}", [*values, *ratios, Cell(f"{row['images_beyond']}")]))
    return Table(
        f"{name.capitalize()}, medians over images in units of the map: its length, what random points and the "
        "strongest attack change (Euclidean), what an allowed input reaches on the tangent, and the bounds; ratios of "
        "bound to attack, with their intervals; images with a point beyond the linearized bound.",
        ["Model", "Length", "Noise", "Attack", "Tangent", "Linearized", "Certified", "Lin. / attack", "Cert. / attack",
         "Beyond lin."],
        rows,
    )  # fmt: skip


def _ratio(value: dict[str, float] | None) -> Cell:
    if value is None:
        return Cell("–")
    return Cell(number(value["value"]), f"[{number(value['low'])}, {number(value['high'])}]")


def _cosines(found: dict[str, Any], name: str) -> Table:
    rows = [
        (
            f"{LABELS[row['model']]}, {_threat(row)}",
            [Cell(number(row["cosine"][k])) for k in ("attack", "linearized", "certified")],
        )
        for _, row in _of(found, name)
    ]
    return Table(
        f"{name.capitalize()}, 1 − cosine of the signed maps, medians over images; 2 is all there is.",
        ["Model", "Attack", "Linearized", "Certified"],
        rows,
    )


def _by_attack(found: dict[str, Any], name: str) -> Table:
    rows = []
    for _, row in _of(found, name):
        cells = [Cell(number(row["by_attack"][attack])) for attack in found["attacks"]]
        rows.append((f"{LABELS[row['model']]}, {_threat(row)}", cells))
    return Table(
        f"{name.capitalize()}: the largest Euclidean deviation that each attack found over the linearized bound, "
        "median over images.",
        ["Model", *found["attacks"]],
        rows,
    )


def _agreement(found: dict[str, Any]) -> Table:
    rows = []
    for row in found["cells"]:
        cells = [Cell(str(row["images"])), *(_ratio(row["agreement"][kind]) for kind in ("linearized", "certified"))]
        rows.append((f"{LABELS[row['model']]}, {row['map']}, {_threat(row)}", cells))
    return Table(
        "Spearman's rank correlation over images between the bound and the strongest attack, Euclidean, with 95 % "
        "bootstrap intervals over images.",
        ["Model", "Images", "Linearized", "Certified"],
        rows,
    )


def _across(found: dict[str, Any]) -> Table:
    rows = []
    for row in found["across_models"]:
        cells = [Cell(str(row["models"])), *(Cell(number(row[kind])) for kind in ("linearized", "certified"))]
        rows.append((f"{row['map']}, {_threat(row)}", cells))
    return Table(
        "The same over models, of their medians: so few models can agree by chance.",
        ["", "Models", "Linearized", "Certified"],
        rows,
    )


def _pictures(found: dict[str, Any], arrays: Arrays) -> Block:
    shown = arrays["shown"]
    row: list[tuple[str, str] | None] = [(picture(x), "test image") for x in shown]
    rows = [("image", row)]
    last = max(row["eps"] for row in found["cells"] if row["norm"] == "linf")
    for index, cell in _of(found, found["maps"][0]):
        if (cell["norm"], cell["eps"]) != ("linf", last):
            continue
        maps = [arrays[f"{index}/{k}"] for k in ("clean", "moved")]
        scales = np.abs(np.stack(maps)).reshape(2, len(shown), -1).max((0, 2))
        for label, values in zip(("clean", "attacked"), maps):
            name = f"{LABELS[cell['model']]}, {label}"
            rows.append((name, [(colored(m, float(s)), f"map: {name}") for m, s in zip(values, scales)]))
    return Pictures(
        f"Saliency of the predicted class before and after the Euclidean PGD attack at ℓ∞ {number(last)}, which leaves "
        "the prediction as it was; each pair on one scale, blue below zero, red above.",
        ["", *(str(i + 1) for i in range(len(shown)))],
        rows,
    )
