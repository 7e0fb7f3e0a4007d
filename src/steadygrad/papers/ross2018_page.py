"""The page of Ross and Doshi-Velez 2018: tables next to the paper's, matrices, overlaps, gradients and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from steadygrad.measuring.statistics import newcombe
from steadygrad.measuring.table import Array
from steadygrad.measuring.table import Table as Measurements
from steadygrad.papers.parts import against, fixed, line, panels, percent, searched_tables
from steadygrad.papers.ross2018_networks import LABELS, MODELS
from steadygrad.report.blocks import Block, Cell, Figure, Folded, Pictures, Section, Table, Text
from steadygrad.report.png import Picture, change, image, tiled
from steadygrad.report.style import SERIES, logarithmic
from steadygrad.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["gradients", "sections", "targets"]

Found = Mapping[str, Any]
_HEAD = list(LABELS.values())
_SETS_SHOWN = 8
_LEAST_LOG = -60.0


def sections(found: Found, gradients: Section, targets: Section) -> list[Section]:
    """All sections of the page, with the two that are drawn from tables by the functions below."""
    weights = ", ".join(f"{LABELS[name]} {number(weight)}" for name, weight in found["weights"].items())
    named = Text(f"Weights of the penalties, per sample: {weights}.")
    score = "Accuracy under FGSM at ε .2"
    tried = searched_tables(found["search"], LABELS, score=score, shown="{:.1%}".format, settings=number)
    return [
        Section("Accuracy", [_clean(found), _own(found), _own_curves(found)]),
        Section("Transfer", _transfer(found)),
        Section("Overlap", _overlap(found["overlap"])),
        gradients,
        Section("Training", [_training(found["curves"]), *(tried or [named])]),
        targets,
    ]


def _published(found: Found, kind: str, source: str, eps: str, judged: str) -> float | None:
    value: float | None = found["published"]["transfer"].get(kind, {}).get(source, {}).get(eps, {}).get(judged)
    return value


def _clean(found: Found) -> Table:
    ours, theirs = found["clean"], found["published"]["clean"]
    count = ours["normal"].count
    return Table(
        f"Accuracy on {count:,} clean test images, in percent, with its 95 % interval.",
        ["Model", "Accuracy", "Paper", "Difference"],
        [(LABELS[name], against(ours[name], theirs.get(name), count, (1, 1, 2))) for name in MODELS],
    )


def _own(found: Found) -> Table:
    eps, judges = f"{found['curve_eps']:g}", found["own_judges"]

    def cells(name: str) -> list[Cell]:
        shown: list[Cell] = []
        for kind in ("fgsm", "tgsm"):
            theirs = _published(found, kind, name, eps, name)
            shown += against(found["transfer"][kind][name][eps][name], theirs, found["published"]["images"])
        return [*shown, *(percent(kept[name]) for kept in judges.values())]

    return Table(
        f"Accuracy in percent on examples made on the model itself at ε {eps}, first {found['images']:,} test images. "
        "Cross-entropy FGSM can be fooled by gradients that underflow; the targeted step and the margin cannot, and a "
        "model that stands under the first and falls under the others is not robust.",
        ["Model", "FGSM", "Paper", "Diff.", "TGSM", "Paper", "Diff.", *judges],
        [(LABELS[name], cells(name)) for name in MODELS],
    )


def _own_curves(found: Found) -> Figure:
    def draw(axes: Axes, place: int) -> None:
        for name in MODELS:
            _against_eps(axes, found, ("fgsm", "tgsm")[place], name, name)

    caption = "Accuracy on examples made on the model itself, against ε. Thin dashed lines are the paper's."
    return panels(["FGSM", "TGSM"], draw, caption, "ε", "accuracy, %", columns=2, height=3.4)


def _transfer_curves(found: Found) -> Figure:
    def draw(axes: Axes, place: int) -> None:
        for judged in MODELS:
            _against_eps(axes, found, "fgsm", MODELS[place], judged)

    caption = "Accuracy of every model on examples made on one of them, against ε; thin dashed lines are the paper's."
    return panels([f"made on {LABELS[name]}" for name in MODELS], draw, caption, "ε", "accuracy, %")


def _against_eps(axes: Axes, found: Found, kind: str, source: str, judged: str) -> None:
    index = MODELS.index(judged)
    eps, points = found["epsilons"], found["transfer"][kind][source]
    shares = [found["clean"][judged], *(points[f"{e:g}"][judged] for e in eps)]
    line(axes, index, [0.0, *eps], [100 * share.value for share in shares], LABELS[judged])
    theirs = found["published"]["transfer"].get(kind, {}).get(source, {})
    there = sorted((float(e), 100 * row[judged]) for e, row in theirs.items() if judged in row)
    there = [point for point in there if point[0] <= eps[-1] + 1e-9]
    if there:
        x, y = zip(*there)
        line(axes, index, x, y, marker="", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(ylim=(0, 101), xlim=(0, max(eps)))


def _transfer(found: Found) -> list[Block]:
    shown, known = f"{found['curve_eps']:g}", found["published"]["transfer"]

    def matrix(kind: str, eps: str) -> Block:
        rows = found["transfer"][kind]
        caption = f"{kind.upper()} at ε {eps}: accuracy in percent of the column's model on examples made on the row's."
        cells = {s: [percent(v := rows[s][eps][n], shade=v.value, framed=n == s) for n in MODELS] for s in MODELS}
        return Table(caption, ["Made on", *_HEAD], [(LABELS[s], row) for s, row in cells.items()])

    def differences(kind: str, eps: str) -> Block:
        names = [n for n in MODELS if _published(found, kind, "normal", eps, n) is not None]

        def apart(source: str, judged: str) -> Cell:
            theirs = _published(found, kind, source, eps, judged)
            ours, count = found["transfer"][kind][source][eps][judged], found["published"]["images"]
            return fixed(None if theirs is None else newcombe(ours, theirs, count), 1, 100, "+")

        return Table(
            f"{kind.upper()} at ε {eps}: our accuracy minus the paper's in points, with the interval for both samples "
            "of images.",
            ["Made on", *(LABELS[n] for n in names)],
            [(LABELS[s], [apart(s, n) for n in names]) for s in names],
        )

    folded = [Folded(f"Ours minus the paper's, FGSM, ε {shown}", [differences("fgsm", shown)])] if known else []
    every = [f"{eps:g}" for eps in found["epsilons"]]
    for kind in ("fgsm", "tgsm"):
        title = kind.upper()
        folded.append(Folded(f"{title}: the matrices at every ε", [matrix(kind, eps) for eps in every]))
        if known:
            apart = [differences(kind, eps) for eps in every]
            folded.append(Folded(f"{title}: ours minus the paper's at every ε", apart))
    text = "Rows made the examples, columns judged them; the frame marks examples made on the model itself."
    return [Text(text), matrix("fgsm", shown), _transfer_curves(found), *folded]


def _overlap(overlap: Found) -> list[Block]:
    rows = []
    for source in MODELS:
        counts = np.zeros(len(MODELS) + 1, dtype=int)
        for row in overlap["sources"][source]:
            counts[len(row["fooled"])] += row["images"]
        total = max(1, counts.sum())
        rows.append((LABELS[source], [Cell(str(c), shade=float(c / total)) for c in counts]))
    blocks: list[Block] = [
        Text(
            f"FGSM at ε {overlap['eps']:g} on the {overlap['count']:,} test images that all six models get right when "
            "clean: how many models does each example fool, and which ones?"
        ),
        Table(
            "Number of examples by how many of the six models they fool.",
            ["Made on", *(f"{i} models" if i != 1 else "1 model" for i in range(len(MODELS) + 1))],
            rows,
        ),
    ]
    folded: list[Block] = []
    for source in MODELS:
        sets = [
            (f"{row['images']:,} images", [Cell("●" if n in row["fooled"] else "·") for n in MODELS])
            for row in overlap["sources"][source][:_SETS_SHOWN]
        ]
        caption = (
            f"The most frequent sets of fooled models for examples made on {LABELS[source]}; ● marks a fooled one."
        )
        folded.append(Folded(f"Made on {LABELS[source]}", [Table(caption, ["Set", *_HEAD], sets)]))
    return [*blocks, *folded]


def _training(curves: Found) -> Figure:
    def draw(axes: Axes, _: int) -> None:
        for index, name in enumerate(MODELS):
            steps = [row["step"] for row in curves[name]]
            line(axes, index, steps, [100 * row["fgsm"] for row in curves[name]], LABELS[name])
            clean = [100 * row["clean"] for row in curves[name]]
            line(axes, index, steps, clean, marker="", linewidth=0.9, linestyle=":")
        axes.set_ylim(0, 101)

    caption = (
        "Accuracy on 256 validation images at every checkpoint: solid under the model's own FGSM at ε .2, dotted clean."
    )
    return panels([""], draw, caption, "steps", "validation accuracy, %", height=3.2)


def gradients(
    found: Found,
    norms: Mapping[str, Measurements],
    logs: Mapping[str, Array],
    labels: Array,
    shown: Mapping[str, Measurements],
    classes: Sequence[str],
) -> Section:
    """Norms of the gradients, log-probabilities, and the gradients as pictures."""

    def cells(row: Found) -> list[Cell]:
        middles = [row[key] for key in ("label", "next", "decades_apart")]
        return [
            *(Cell(number(q["0.5"]), f"[{number(q['0.05'])}, {number(q['0.95'])}]") for q in middles),
            Cell(number(row["log_probability_all"]["0.05"])),
            percent(row["zero"]),
        ]

    table = Table(
        "Medians over the test images, with the 5 % and 95 % quantiles; then the 5 % quantile of all "
        "log-probabilities, and the images whose gradient for the label is exactly zero in float32, in percent: there "
        "FGSM and TGSM change nothing, and the image counts as it is.",
        ["Model", "Norm, label", "Norm, next class", "Decades between", "Log-probability, 5 %", "Zero"],
        [(LABELS[name], cells(found["gradient_norms"][name])) for name in MODELS],
    )
    names = [classes[int(label)] for label in shown["normal"]["label"]]
    images = [Picture(image(x), f"test image of class {name}") for x, name in zip(shown["normal"]["input"], names)]
    rows: list[tuple[str, list[Picture]]] = [("image", images)]
    for name in MODELS:
        text = f"input gradient of {LABELS[name]}"
        maps = shown[name]["map"]
        rows.append((LABELS[name], [Picture(change(m, float(np.abs(m).max())), text) for m in maps]))
    caption = "Input gradients of the sum of all log-probabilities, each on its own scale: blue below zero, red above."
    return Section("Gradients", [_norms(norms), table, _logs(logs, labels), Pictures(caption, ["", *names], rows)])


def _norms(norms: Mapping[str, Measurements]) -> Figure:
    columns = {"norm": (-0.17, SERIES[0]), "next_norm": (0.17, SERIES[1])}
    everything = np.concatenate([norms[name][column] for name in MODELS for column in columns])
    floor = 10.0 ** max(-12.0, np.floor(np.log10(max(everything[everything > 0].min(initial=1.0), 1e-12))))

    def draw(axes: Axes, _: int) -> None:
        for row, name in enumerate(MODELS):
            for column, (shift, color) in columns.items():
                box = axes.boxplot(
                    np.maximum(norms[name][column], floor), positions=[row + shift], orientation="horizontal",
                    widths=0.26, whis=(5, 95), showfliers=False,
                )  # fmt: skip
                for part in (*box["boxes"], *box["whiskers"], *box["caps"], *box["medians"]):
                    part.set_color(color)
        axes.set_yticks(range(len(MODELS)), _HEAD)
        axes.invert_yaxis()
        logarithmic(axes, "x")

    caption = (
        "ℓ2 norm of the input gradient on a logarithmic axis: box from the lower to the upper quartile, whiskers from "
        "the 5 % to the 95 % quantile. Upper box of each pair: the label; lower one: the class after it."
    )
    label = f"norm of the input gradient (smaller ones stand at {floor:.0e})"
    return panels([""], draw, caption, label, height=0.6 * len(MODELS))


def _logs(logs: Mapping[str, Array], labels: Array) -> Figure:
    bins = np.linspace(_LEAST_LOG, 0.0, 61)

    def draw(axes: Axes, place: int) -> None:
        values = np.maximum(logs[MODELS[place]], _LEAST_LOG)  # (N, K)
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
    return panels(_HEAD, draw, caption, "log-probability", height=2.2, shared=True)


def targets(found: Found, tables: Mapping[str, Mapping[str, Measurements]], classes: Sequence[str]) -> Section:
    """The attacks towards every class: how often they reach it, and what they make."""

    def cells(name: str) -> list[Cell]:
        rows = [found["targeted"][kind][name] for kind in tables]
        return [cell for row in rows for cell in (percent(row["reached"]), Cell(number(row["changed"]["0.5"])))]

    def pictures(kind: str, name: str, places: Sequence[int]) -> Picture:
        table = tables[kind][name]
        gaps = ~table["success"][places] & (table["label"][places][:, None] != np.arange(len(classes)))
        return Picture(image(tiled(table["pictures"][places], gaps)), f"{kind} on {LABELS[name]}")

    head = ["Model", *(text for kind in tables for text in (f"{kind}: reached", "entries changed"))]
    caption = (
        f"{found['targeted_images']} test images that all models get right, towards every other class: share in "
        "percent of the pairs that reached the target, and the median number of entries changed where it did."
    )
    folded: list[Block] = []
    for kind, by_name in tables.items():
        labels = by_name["normal"]["label"].tolist()
        places = [labels.index(c) for c in range(len(classes)) if c in labels][:10]  # one image of each class
        text = (
            f"{kind}: originals of class {', '.join(classes[labels[p]] for p in places)} by row, targets "
            f"{', '.join(classes)} by column; the diagonal holds the original, a gray cell a target that was not "
            "reached."
        )
        rows = [(LABELS[name], [pictures(kind, name, places)]) for name in MODELS]
        folded.append(Folded(f"{kind}: original by target", [Pictures(text, ["", ""], rows, wide=True)]))
    return Section("Targets", [Table(caption, head, [(LABELS[name], cells(name)) for name in MODELS]), *folded])
