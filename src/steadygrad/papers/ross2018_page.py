"""The page of Ross and Doshi-Velez 2018: tables next to the paper's, matrices, overlaps, gradients and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from steadygrad.measuring.statistics import newcombe
from steadygrad.measuring.table import Array
from steadygrad.measuring.table import Table as Measurements
from steadygrad.papers.claims import published_shares
from steadygrad.papers.parts import Points, Rows, against, fixed, panels, percent, searched_tables
from steadygrad.papers.ross2018_networks import LABELS
from steadygrad.papers.study import Study
from steadygrad.report.blocks import Block, Cell, Figure, Folded, Pictures, Section, Table, Text
from steadygrad.report.png import Picture, change, image, tiled
from steadygrad.report.style import SERIES, logarithmic
from steadygrad.report.wording import between, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from steadygrad.papers.ross2018 import Measured


Found = Mapping[str, Any]
Shares = Mapping[tuple[str, ...], Any]
_SETS_SHOWN = 8
_LEAST_LOG = -60.0
_ALL = Rows(LABELS, LABELS)
_SHOWN = "0.2"  # the epsilon of the tables that are shown first
_IMAGES = 256  # of the paper's tables


def sections(study: Study, found: Measured, results: Found, theirs: Shares) -> list[Section]:
    """All sections of the page; `theirs` are the published accuracies after one step."""
    weights = ", ".join(f"{LABELS[name]} {number(weight)}" for name, weight in results["weights"].items())
    named = Text(f"Weights of the penalties, per sample: {weights}.")
    score = "Accuracy under FGSM at ε .2"
    tried = searched_tables(results["search"], LABELS, score=score, shown="{:.1%}".format, settings=number)
    shares, classes = found.shares, study["classes"]
    return [
        Section("Accuracy", _accuracy(study, results, shares, theirs)),
        Section("Transfer", _transfer(study, results, shares, theirs)),
        Section("Overlap", _overlap(results["overlap"])),
        Section("Gradients", _gradients(found, results["gradient_norms"], classes)),
        Section("Training", [_training(results["curves"]), *(tried or [named])]),
        Section("Targets", _targets(found.targeted, results, classes)),
    ]


def _accuracy(study: Study, results: Found, shares: Shares, theirs: Shares) -> list[Block]:
    clean, stands = results["clean"], results["own_judges"]
    published = published_shares("ross2018_clean", ["model"], dataset=study["dataset"])
    count, images = clean["normal"].count, shares["fgsm", "normal", _SHOWN, "normal"].count

    def own(name: str, kind: str) -> list[Cell]:
        at = (kind, name, _SHOWN, name)
        return against(shares[at], theirs.get(at), _IMAGES)

    itself = {kind.upper(): (kind, "") for kind in ("fgsm", "tgsm")}
    text = "Accuracy on examples made on the model itself, against ε. Thin dashed lines are the paper's."
    return [
        _ALL.table(
            f"Accuracy on {count:,} clean test images, in percent, with its 95 % interval.",
            {("Accuracy", "Paper", "Difference"): lambda n: against(clean[n], published.get((n,)), count, (1, 1, 2))},
        ),
        _ALL.table(
            f"Accuracy in percent on examples made on the model itself at ε {_SHOWN}, first {images:,} test images. "
            "Cross-entropy FGSM can be fooled by gradients that underflow; the targeted step and the margin cannot, "
            "and a model that stands under the first and falls under the others is not robust.",
            {
                ("FGSM", "Paper", "Diff."): lambda n: own(n, "fgsm"),
                ("TGSM", "Paper", "Diff."): lambda n: own(n, "tgsm"),
                tuple(stands): lambda n: [kept[n] for kept in stands.values()],
            },
        ),
        _curves(study, clean, shares, theirs, itself, text, columns=2, height=3.4),
    ]


def _curves(
    study: Study, clean: Found, shares: Shares, theirs: Shares, panels: Mapping[str, tuple[str, str]], caption: str,
    **layout: Any,
) -> Figure:  # fmt: skip
    """Accuracy against epsilon: panels by title for an attack on a source, or where it is empty on the model itself."""
    epsilons, of = study["epsilons"], list(panels.values())

    def ours(panel: int, judged: str) -> Points:
        kind, source = of[panel]
        at = [clean[judged], *(shares[kind, source or judged, f"{e:g}", judged] for e in epsilons)]
        return [0.0, *epsilons], [100 * share.value for share in at]

    def published(panel: int, judged: str) -> Points:
        place = (of[panel][0], of[panel][1] or judged, judged)
        there = sorted((float(e), 100 * v) for (k, s, e, n), v in theirs.items() if (k, s, n) == place)
        there = [point for point in there if point[0] <= epsilons[-1] + 1e-9]
        return [x for x, _ in there], [y for _, y in there]

    limits = {"ylim": (0, 101), "xlim": (0, max(epsilons))}
    return _ALL.lines(list(panels), ours, caption, "ε", "accuracy, %", thin=published, limits=limits, **layout)


def _transfer(study: Study, results: Found, shares: Shares, theirs: Shares) -> list[Block]:
    every = [f"{eps:g}" for eps in study["epsilons"]]

    def matrix(kind: str, eps: str) -> Block:
        def cell(source: str, judged: str) -> Cell:
            share = shares[kind, source, eps, judged]
            return percent(share, shade=share.value, framed=judged == source)

        caption = f"{kind.upper()} at ε {eps}: accuracy in percent of the column's model on examples made on the row's."
        return _ALL.table(caption, {tuple(LABELS.values()): lambda s: [cell(s, n) for n in LABELS]}, "Made on")

    def differences(kind: str, eps: str) -> Block:
        names = {name: label for name, label in LABELS.items() if (kind, "normal", eps, name) in theirs}

        def apart(source: str, judged: str) -> Cell:
            at = (kind, source, eps, judged)
            return fixed(newcombe(shares[at], theirs[at], _IMAGES) if at in theirs else None, 1, 100, "+")

        return Rows(LABELS, names).table(
            f"{kind.upper()} at ε {eps}: our accuracy minus the paper's in points, with the interval for both samples "
            "of images.",
            {tuple(names.values()): lambda s: [apart(s, n) for n in names]},
            "Made on",
        )

    text = f"Ours minus the paper's, FGSM, ε {_SHOWN}"
    folded = [Folded(text, [differences("fgsm", _SHOWN)])] if theirs else []
    for kind in ("fgsm", "tgsm"):
        title = kind.upper()
        folded.append(Folded(f"{title}: the matrices at every ε", [matrix(kind, eps) for eps in every]))
        if theirs:
            apart = [differences(kind, eps) for eps in every]
            folded.append(Folded(f"{title}: ours minus the paper's at every ε", apart))
    text = "Rows made the examples, columns judged them; the frame marks examples made on the model itself."
    caption = "Accuracy of every model on examples made on one of them, against ε; thin dashed lines are the paper's."
    made = {f"made on {label}": ("fgsm", name) for name, label in LABELS.items()}
    return [
        Text(text),
        matrix("fgsm", _SHOWN),
        _curves(study, results["clean"], shares, theirs, made, caption),
        *folded,
    ]


def _overlap(overlap: Found) -> list[Block]:
    sets = overlap["sources"]

    def counted(source: str) -> list[Cell]:
        counts = np.zeros(len(LABELS) + 1, dtype=int)
        for row in sets[source]:
            counts[len(row["fooled"])] += row["images"]
        return [Cell(str(c), shade=float(c / max(1, counts.sum()))) for c in counts]

    def frequent(source: str) -> Folded:
        rows = [
            (f"{row['images']:,} images", [Cell("●" if n in row["fooled"] else "·") for n in LABELS])
            for row in sets[source][:_SETS_SHOWN]
        ]
        caption = (
            f"The most frequent sets of fooled models for examples made on {LABELS[source]}; ● marks a fooled one."
        )
        return Folded(f"Made on {LABELS[source]}", [Table(caption, ["Set", *LABELS.values()], rows)])

    return [
        Text(
            f"FGSM at ε {overlap['eps']:g} on the {overlap['count']:,} test images that all six models get right when "
            "clean: how many models does each example fool, and which ones?"
        ),
        _ALL.table(
            "Number of examples by how many of the six models they fool.",
            {tuple(f"{i} models" if i != 1 else "1 model" for i in range(len(LABELS) + 1)): counted},
            "Made on",
        ),
        *map(frequent, LABELS),
    ]


def _training(curves: Found) -> Figure:
    def scores(column: str) -> Callable[[int, str], Points]:
        return lambda _, name: ([r["step"] for r in curves[name]], [100 * r[column] for r in curves[name]])

    caption = (
        "Accuracy on 256 validation images at every checkpoint: solid under the model's own FGSM at ε .2, dotted clean."
    )
    return _ALL.lines(
        [""], scores("fgsm"), caption, "steps", "validation accuracy, %", thin=scores("clean"), dashes=":",
        limits={"ylim": (0, 101)}, height=3.2,
    )  # fmt: skip


def _gradients(found: Measured, norms: Found, classes: Sequence[str]) -> list[Block]:
    """Norms of the gradients, log-probabilities, and the gradients as pictures."""

    def cells(name: str) -> list[Any]:
        row = norms[name]
        middles = [row[key] for key in ("label", "next", "decades_apart")]
        return [
            *(Cell(*between(q["0.5"], q["0.05"], q["0.95"])) for q in middles),
            row["log_probability_all"]["0.05"],
            row["zero"],
        ]

    heads = ("Norm, label", "Norm, next class", "Decades between", "Log-probability, 5 %", "Zero")
    table = _ALL.table(
        "Medians over the test images, with the 5 % and 95 % quantiles; then the 5 % quantile of all "
        "log-probabilities, and the images whose gradient for the label is exactly zero in float32, in percent: there "
        "FGSM and TGSM change nothing, and the image counts as it is.",
        {heads: cells},
    )
    shown = found.shown
    names = [classes[int(label)] for label in shown["normal"]["label"]]
    images = [Picture(image(x), f"test image of class {name}") for x, name in zip(shown["normal"]["input"], names)]
    rows: list[tuple[str, list[Picture]]] = [("image", images)]
    for name, label in LABELS.items():
        maps, text = shown[name]["map"], f"input gradient of {label}"
        rows.append((label, [Picture(change(m, float(np.abs(m).max())), text) for m in maps]))
    caption = "Input gradients of the sum of all log-probabilities, each on its own scale: blue below zero, red above."
    return [_norms(found.norms), table, _logs(found.logs, found.labels), Pictures(caption, ["", *names], rows)]


def _norms(norms: Mapping[str, Measurements]) -> Figure:
    columns = {"norm": (-0.17, SERIES[0]), "next_norm": (0.17, SERIES[1])}
    everything = np.concatenate([norms[name][column] for name in LABELS for column in columns])
    floor = 10.0 ** max(-12.0, np.floor(np.log10(max(everything[everything > 0].min(initial=1.0), 1e-12))))

    def draw(axes: Axes, _: int) -> None:
        for row, name in enumerate(LABELS):
            for column, (shift, color) in columns.items():
                box = axes.boxplot(
                    np.maximum(norms[name][column], floor), positions=[row + shift], orientation="horizontal",
                    widths=0.26, whis=(5, 95), showfliers=False,
                )  # fmt: skip
                for part in (*box["boxes"], *box["whiskers"], *box["caps"], *box["medians"]):
                    part.set_color(color)
        axes.set_yticks(range(len(LABELS)), list(LABELS.values()))
        axes.invert_yaxis()
        logarithmic(axes, "x")

    caption = (
        "ℓ2 norm of the input gradient on a logarithmic axis: box from the lower to the upper quartile, whiskers from "
        "the 5 % to the 95 % quantile. Upper box of each pair: the label; lower one: the class after it."
    )
    label = f"norm of the input gradient (smaller ones stand at {floor:.0e})"
    return panels([""], draw, caption, label, height=0.6 * len(LABELS))


def _logs(logs: Mapping[str, Array], labels: Array) -> Figure:
    bins = np.linspace(_LEAST_LOG, 0.0, 61)

    def draw(axes: Axes, place: int) -> None:
        values = np.maximum(list(logs.values())[place], _LEAST_LOG)  # (N, K)
        own = np.arange(values.shape[1])[None] == labels[:, None]
        for some, kind, color, alpha in (
            (values[own], "stepfilled", SERIES[0], 0.6), (values[~own], "step", SERIES[1], 1.0)
        ):  # fmt: skip
            weights = np.full(len(some), 1 / max(1, len(some)))
            axes.hist(some, bins, weights=weights, histtype=kind, color=color, alpha=alpha)  # type: ignore[arg-type]
        logarithmic(axes, "y")

    caption = (
        "Log-probabilities of clean test images: filled the label's, line all other classes'. Heights are shares; all "
        f"below {_LEAST_LOG:g} stand in the first bar."
    )
    return panels(list(LABELS.values()), draw, caption, "log-probability", height=2.2, shared=True)


def _targets(tables: Mapping[str, Mapping[str, Measurements]], results: Found, classes: Sequence[str]) -> list[Block]:
    """The attacks towards every class: how often they reach it, and what they make."""

    def reached(name: str) -> list[Any]:
        rows = [results["targeted"][kind][name] for kind in tables]
        return [value for row in rows for value in (row["reached"], row["changed"]["0.5"])]

    def made(kind: str) -> Folded:
        labels = tables[kind]["normal"]["label"].tolist()
        places = [labels.index(c) for c in range(len(classes)) if c in labels][:10]  # one image of each class

        def picture(name: str) -> Picture:
            table = tables[kind][name]
            gaps = ~table["success"][places] & (table["label"][places][:, None] != np.arange(len(classes)))
            return Picture(image(tiled(table["pictures"][places], gaps)), f"{kind} on {LABELS[name]}")

        text = (
            f"{kind}: originals of class {', '.join(classes[labels[p]] for p in places)} by row, targets "
            f"{', '.join(classes)} by column; the diagonal holds the original, a gray cell a target that was not "
            "reached."
        )
        rows = [(label, [picture(name)]) for name, label in LABELS.items()]
        return Folded(f"{kind}: original by target", [Pictures(text, ["", ""], rows, wide=True)])

    caption = (
        f"{results['targeted_images']} test images that all models get right, towards every other class: share in "
        "percent of the pairs that reached the target, and the median number of entries changed where it did."
    )
    heads = tuple(text for kind in tables for text in (f"{kind}: reached", "entries changed"))
    return [_ALL.table(caption, {heads: reached}), *map(made, tables)]
