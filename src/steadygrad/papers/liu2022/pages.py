"""The page: transferred and direct attacks, the maps and their measures, and the settings."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from steadygrad.papers.liu2022.measures import JUDGED
from steadygrad.papers.liu2022.settings import LABELS
from steadygrad.papers.paper_page import share
from steadygrad.papers.store import Arrays
from steadygrad.report.blocks import Block, Cell, Pictures, Section, Table
from steadygrad.report.png import Picture, change, image, tiled

__all__ = ["sections"]


def sections(summary: dict[str, Any], arrays: Arrays) -> list[Section]:
    """All sections of the page, from the summary and the arrays alone."""
    found = summary["results"]
    return [
        Section("Attacks", [_transferred(found), _direct(found)]),
        Section("Maps", [_maps(found), _pictures(found, arrays)]),
        Section("Settings", _settings(found)),
    ]


def _transferred(found: dict[str, Any]) -> Table:
    attacks = list(found["rows"]["plain"]["transferred"])
    rows = []
    for name in found["models"]:
        row = found["rows"][name]
        cells = [share(row["accuracy"]), *(share(row["transferred"][attack]) for attack in attacks)]
        rows.append((LABELS[name], cells))
    return Table(
        f"Accuracy in percent: clean on {found['images']['accuracy']:,} test images, and at the points that attacks on "
        f"an undefended {found['source']} make of the first {found['images']['transferred']:,}, linf "
        f"{found['eps']:.3g}. The points count whether they fool their source or not.",
        ["Model", "Clean", *attacks],
        rows,
    )


def _direct(found: dict[str, Any]) -> Table:
    rows = [
        (LABELS[name], [share(found["rows"][name]["suite"]), Cell(found["rows"][name]["verdict"])])
        for name in found["models"]
    ]
    return Table(
        f"What no attack of the fast suite on the model itself changes, in percent of the first "
        f"{found['images']['suite']:,} test images, linf {found['eps']:.3g}; and whether an accuracy under attack may "
        f"be believed, by the checks on the first {found['images']['checked']:,}.",
        ["Model", "Standing", "Checks"],
        rows,
        words=(1,),
    )


def _maps(found: dict[str, Any]) -> Table:
    rows = []
    for name in found["models"]:
        cells = []
        for measure in JUDGED:
            value = found["rows"][name]["maps"][measure]
            cells.append(Cell(f"{value['value']:.3f}", f"[{value['low']:.3f}, {value['high']:.3f}]"))
        rows.append((LABELS[name], cells))
    head = [f"{measure} ({'more' if better else 'less'} is better)" for measure, better in JUDGED.items()]
    return Table(
        f"The gradient of the log odds of the predicted class, on the first {found['images']['maps']:,} test "
        "images. The salient pixels are the top fifth of blur saliency on the model itself: a map that knows nothing "
        "has 0.2 of its energy there. Areas are mean probabilities, so that a model's certainty counts too; the last "
        "columns are what they gain over the areas of random maps on the same model.",
        ["Model", *head],
        rows,
    )


def _pictures(found: dict[str, Any], arrays: Arrays) -> Pictures:
    images = arrays["images"]
    row = tiled(images[None], np.zeros((1, len(images)), dtype=bool))
    rows: list[tuple[str, list[Picture | None]]] = [("images", [Picture(image(row), "test images"), None])]
    for name in found["models"]:
        cells: list[Picture | None] = []
        for what, text in (("gradient", "gradient of the log odds"), ("saliency", "blur saliency")):
            maps = arrays[f"{name}/{what}"].sum(1, keepdims=True)  # (n, 1, H, W)
            largest = np.abs(maps).max((1, 2, 3), keepdims=True)
            apart = np.pad(maps / np.where(largest > 0, largest, 1), ((0, 0), (0, 0), (0, 0), (0, 2)))
            cells.append(Picture(change(np.concatenate(list(apart), axis=2), 1.0), f"{text} of {LABELS[name]}"))
        rows.append((LABELS[name], cells))
    return Pictures(
        "What the models look at: sums over the channels, each map by its largest value, red above zero.",
        ["Model", "Gradient of the log odds", "Blur saliency"],
        rows,
        wide=True,
    )


def _settings(found: dict[str, Any]) -> list[Block]:
    rows = [
        (LABELS[name], [Cell(json.dumps(defense, ensure_ascii=False))]) for name, defense in found["defenses"].items()
    ]
    out: list[Block] = [Table("What each model was trained with.", ["Model", "Objective"], rows, words=(0,))]
    if found["search"]:
        tried = [
            (
                LABELS[row["model"]],
                [
                    Cell(
                        ", ".join(f"{part} {value:.3g}" for part, value in row["weights"].items()),
                        good=True if found["chosen"][row["model"]] == row["weights"] else None,
                    ),
                    Cell(f"{100 * row['accuracy']:.1f}"),
                    Cell(f"{100 * row['transferred']:.1f}"),
                ],
            )
            for row in found["search"]
        ]
        out.append(
            Table(
                "The search on held-out training images: the chosen weights are ticked. They are the best under "
                "transferred attacks among those within a point of the plain model's clean accuracy. J-SIGR tries the "
                "Jacobian's weight that was chosen alone, and a third of it; the selective penalty alone has J-SIGR's.",
                ["Model", "Weights", "Clean, %", "Transferred, %"],
                tried,
                words=(0,),
            )
        )
    return out
