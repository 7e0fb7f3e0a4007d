"""The page: tables next to the paper's, matrices, overlaps, gradients and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from steadygrad.measuring.statistics import Estimate, newcombe, share_of
from steadygrad.papers.page import (
    Block,
    Cell,
    Figure,
    Pictures,
    Section,
    Table,
    Text,
    picture,
    share,
    sheet,
    signed,
    signed_picture,
)
from steadygrad.papers.ross2018 import figures
from steadygrad.papers.ross2018.settings import LABELS
from steadygrad.papers.store import Arrays
from steadygrad.report.wording import number

__all__ = ["sections"]

_SETS_SHOWN = 8


def sections(summary: dict[str, Any], arrays: Arrays) -> list[Section]:
    """All sections of the page, from the summary and the arrays alone."""
    found, classes = summary["results"], summary["data"]["classes"]
    return [
        Section("Accuracy", [_clean(found), _own(found), Figure(figures.own_curves(found), figures.OWN)]),
        Section("Transfer", *_transfer(found)),
        Section("Overlap", *_overlap(found)),
        Section("Gradients", _gradients(found, arrays, classes)),
        Section("Training", [Figure(figures.training(found), figures.TRAINING), *_search(found)]),
        Section("Targets", *_targets(found, arrays, classes)),
    ]


def _estimate(value: dict[str, Any]) -> Estimate:
    return Estimate(**value)


def _clean(found: dict[str, Any]) -> Table:
    theirs = found["published"]["clean"]
    rows = []
    for name in found["models"]:
        mine, other = found["clean"][name], theirs.get(name)
        difference = newcombe(_estimate(mine), other, mine["count"]).plain() if other is not None else None
        rows.append((LABELS[name], [share(mine), Cell(_percent(other)), signed(difference, digits=2)]))
    count = found["clean"][found["models"][0]]["count"]
    return Table(
        f"Accuracy on {count:,} clean test images, in percent, with its 95 % interval.",
        ["Model", "Accuracy", "Paper", "Difference"],
        rows,
    )


def _own(found: dict[str, Any]) -> Table:
    eps = f"{found['curve_eps']:g}"
    judges = found["own_judges"]
    rows = []
    for name in found["models"]:
        index = name
        cells = []
        for kind in ("fgsm", "tgsm"):
            mine = found["transfer"][kind][name][eps][index]
            theirs = _published(found, kind, name, eps, name)
            cells += [share(mine), Cell(_percent(theirs)), _against(mine, theirs, found)]
        cells += [share(judges[label][name]) for label in judges]
        rows.append((LABELS[name], cells))
    return Table(
        f"Accuracy in percent on examples made on the model itself at ε {eps}, first {found['images']:,} test images. "
        "Cross-entropy FGSM can be fooled by gradients that underflow; the targeted step and the margin cannot, and a "
        "model that stands under the first and falls under the others is not robust.",
        ["Model", "FGSM", "Paper", "Diff.", "TGSM", "Paper", "Diff.", *judges],
        rows,
    )


def _against(mine: dict[str, Any], theirs: float | None, found: dict[str, Any]) -> Cell:
    if theirs is None:
        return Cell("–")
    return signed(newcombe(_estimate(mine), theirs, found["published"]["images"]).plain())


def _published(found: dict[str, Any], kind: str, source: str, eps: str, judged: str) -> float | None:
    value: float | None = found["published"]["transfer"].get(kind, {}).get(source, {}).get(eps, {}).get(judged)
    return value


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _transfer(found: dict[str, Any]) -> tuple[list[Block], list[tuple[str, list[Block]]]]:
    eps = f"{found['curve_eps']:g}"
    blocks: list[Block] = [
        Text("Rows made the examples, columns judged them; the frame marks examples made on the model itself."),
        _matrix(found, "fgsm", eps),
        Figure(figures.transfer_curves(found, "fgsm"), figures.TRANSFER),
    ]
    folded: list[tuple[str, list[Block]]] = []
    if found["published"]["transfer"]:
        folded.append((f"Ours minus the paper's, FGSM, ε {eps}", [_differences(found, "fgsm", eps)]))
    for kind in ("fgsm", "tgsm"):
        title = kind.upper()
        every: list[Block] = [_matrix(found, kind, f"{e:g}") for e in found["epsilons"]]
        folded.append((f"{title}: the matrices at every ε", every))
        if found["published"]["transfer"]:
            folded.append(
                (
                    f"{title}: ours minus the paper's at every ε",
                    [_differences(found, kind, f"{e:g}") for e in found["epsilons"]],
                )
            )
    return blocks, folded


def _matrix(found: dict[str, Any], kind: str, eps: str) -> Table:
    names = found["models"]
    rows = []
    for source in names:
        row = found["transfer"][kind][source][eps]
        rows.append((LABELS[source], [share(row[n], shade=row[n]["value"], framed=n == source) for n in names]))
    caption = f"{kind.upper()} at ε {eps}: accuracy in percent of the column's model on examples made on the row's."
    return Table(caption, ["Made on", *(LABELS[n] for n in names)], rows)


def _differences(found: dict[str, Any], kind: str, eps: str) -> Table:
    names = [n for n in found["models"] if _published(found, kind, "normal", eps, n) is not None]
    rows = []
    for source in names:
        cells = []
        for judged in names:
            mine = found["transfer"][kind][source][eps][judged]
            cells.append(_against(mine, _published(found, kind, source, eps, judged), found))
        rows.append((LABELS[source], cells))
    return Table(
        f"{kind.upper()} at ε {eps}: our accuracy minus the paper's in points, with the interval for both samples "
        "of images.",
        ["Made on", *(LABELS[n] for n in names)],
        rows,
    )


def _overlap(found: dict[str, Any]) -> tuple[list[Block], list[tuple[str, list[Block]]]]:
    overlap, names = found["overlap"], found["models"]
    fooled = {s: overlap["sources"][s] for s in names}
    rows = []
    for source in names:
        counts = np.zeros(len(names) + 1, dtype=int)
        for row in fooled[source]:
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
            ["Made on", *(f"{i} models" if i != 1 else "1 model" for i in range(len(names) + 1))],
            rows,
        ),
    ]
    folded: list[tuple[str, list[Block]]] = []
    for source in names:
        table = [
            (
                f"{row['images']:,} images",
                [Cell("●" if n in row["fooled"] else "·") for n in names],
            )
            for row in fooled[source][:_SETS_SHOWN]
        ]
        caption = (
            f"The most frequent sets of fooled models for examples made on {LABELS[source]}; ● marks a fooled one."
        )
        folded.append((f"Made on {LABELS[source]}", [Table(caption, ["Set", *(LABELS[n] for n in names)], table)]))
    return blocks, folded


def _gradients(found: dict[str, Any], arrays: Arrays, classes: list[str]) -> list[Block]:
    names = found["models"]
    rows = []
    for name in names:
        norms = found["gradient_norms"][name]
        rows.append(
            (
                LABELS[name],
                [
                    *(Cell(number(norms[k]["0.5"]), _range(norms[k])) for k in ("label", "next", "decades_apart")),
                    Cell(number(norms["log_probability_all"]["0.05"])),
                    share(share_of(arrays[f"{name}/label"] == 0).plain()),
                ],
            )
        )
    table = Table(
        "Medians over the test images, with the 5 % and 95 % quantiles; then the 5 % quantile of all "
        "log-probabilities, and the images whose gradient for the label is exactly zero in float32, in percent: there "
        "FGSM and TGSM change nothing, and the image counts as it is.",
        ["Model", "Norm, label", "Norm, next class", "Decades between", "Log-probability, 5 %", "Zero"],
        rows,
    )
    shown = arrays["shown"]
    head = ["", *(classes[int(c)] for c in arrays["shown_labels"])]
    pictures: list[tuple[str, list[tuple[str, str] | None]]] = [
        (
            "image",
            [(picture(x), f"test image of class {classes[int(c)]}") for x, c in zip(shown, arrays["shown_labels"])],
        )
    ]
    for name in names:
        maps = arrays[f"{name}/gradient"]
        scales = np.abs(maps).reshape(len(maps), -1).max(1)
        pictures.append(
            (
                LABELS[name],
                [(signed_picture(m, float(s)), f"input gradient of {LABELS[name]}") for m, s in zip(maps, scales)],
            )
        )
    return [
        Figure(figures.norms(arrays, names), figures.NORMS),
        table,
        Figure(figures.log_probabilities(arrays, names), figures.LOGS),
        Pictures(
            "Input gradients of the sum of all log-probabilities, each on its own scale: blue below zero, red above.",
            head,
            pictures,
        ),
    ]


def _range(values: dict[str, float]) -> str:
    return f"[{number(values['0.05'])}, {number(values['0.95'])}]"


def _search(found: dict[str, Any]) -> list[Block]:
    tried = found["search"]
    if not tried:
        weights = ", ".join(f"{LABELS[n]} {number(w)}" for n, w in found["weights"].items())
        return [Text(f"Weights of the penalties, per sample: {weights}.")]
    rows = []
    for name, table in tried["candidates"].items():
        for row in table["rows"]:
            best = row["weight"] == table["chosen"]
            cells = [
                Cell(number(row["weight"]), good=True if best else None),
                Cell(_percent(row["clean"])),
                Cell(_percent(row["fgsm"])),
            ]
            rows.append((LABELS[name], cells))
    return [
        Table(
            "The search on validation data: accuracy in percent, clean and under the model's own FGSM at ε "
            f"{tried['eps']:g}; "
            f"the normal model reaches {_percent(tried['normal'])} clean. ✓ is what was chosen.",
            ["Model", "Weight", "Clean", "FGSM"],
            rows,
        )
    ]


def _targets(
    found: dict[str, Any], arrays: Arrays, classes: list[str]
) -> tuple[list[Block], list[tuple[str, list[Block]]]]:
    kinds = list(found["targeted"])
    rows = []
    for name in found["models"]:
        cells = []
        for kind in kinds:
            row = found["targeted"][kind][name]
            cells += [share(row["reached"]), Cell(number(row["changed"]["0.5"]))]
        rows.append((LABELS[name], cells))
    head = ["Model", *(text for kind in kinds for text in (f"{kind}: reached", "entries changed"))]
    table = Table(
        f"{found['targeted_images']} test images that all models get right, towards every other class: share in "
        "percent of "
        "the pairs that reached the target, and the median number of entries changed where it did.",
        head,
        rows,
    )
    folded: list[tuple[str, list[Block]]] = []
    labels = [classes[int(c)] for c in arrays["grid_labels"]]
    for kind in kinds:
        pictures: list[tuple[str, list[tuple[str, str] | None]]] = []
        for name in found["models"]:
            images = arrays[f"{name}/{kind}/images"] / 255.0
            gaps = ~arrays[f"{name}/{kind}/reached"].copy()
            for row, label in enumerate(arrays["grid_labels"]):
                gaps[row, int(label)] = False
            pictures.append((LABELS[name], [(picture(sheet(images, gaps)), f"{kind} on {LABELS[name]}")]))
        caption = (
            f"{kind}: originals of class {', '.join(labels)} by row, targets {', '.join(classes)} by column; the "
            "diagonal "
            "holds the original, a grey cell a target that was not reached."
        )
        folded.append((f"{kind}: original by target", [Pictures(caption, ["", ""], pictures, wide=True)]))
    return [table], folded
