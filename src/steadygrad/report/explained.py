"""What the section on pushed explanations shows: figures, and samples with their maps on one color scale."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from steadygrad.report import pixels
from steadygrad.report.gallery import Picture, Sample, name_of, picture, plane, reduction
from steadygrad.report.reading import Array, Arrays, Summary
from steadygrad.report.scatter import limits, scatter
from steadygrad.report.wording import number, percent

__all__ = ["FAITHFUL", "GOALS", "MARKS", "SIMILARITIES", "Panel", "panels", "samples"]

SIMILARITIES = {
    "top_k_intersection": "Top 10 % in common",
    "kendall": "Kendall τ-b",
    "cosine": "Cosine",
    "mass_center_displacement": "Shift of the center of mass",
}
FAITHFUL = {
    "energy inside": ("Energy inside", "more is better"),
    "agreement": ("Agreement", "more is better"),
    "deletion": ("Deletion", "less is better"),
    "insertion": ("Insertion", "more is better"),
    "gini": ("Sparsity", "Gini"),
}
GOALS = {
    "top-k": "the loss of the top 10\N{NO-BREAK SPACE}%",
    "mass-center": "the shift of the center of mass",
    "cosine": "the angle",
    "euclidean": "the distance",
}
MARKS = (("#16191c", "certain to stay"), ("#0b6aa2", "stays"), ("#e07b39", "leaves"), ("#f4c7a4", "comes in"))
"""Colors and meanings of the marks 4, 3, 2 and 1 of `gallery.npz`; told apart by lightness too."""
_GROUND = "#f4f5f6"


@dataclass(frozen=True)
class Panel:
    """One model and attribution: its row of the summary, its figure, and its samples."""

    model: str
    row: dict[str, Any]
    figure: str | None
    samples: list[Sample]


def panels(summary: Summary, arrays: Arrays) -> list[tuple[str, list[Panel]]]:
    """The panels by model; none if explanations were not audited."""
    found = summary.get("explained")
    if not found:
        return []
    rows = [row for model in found["models"].values() for row in model["attributions"] if row["refused"] is None]
    decades = limits(row["deviation"]["euclidean"]["values"] for row in rows)
    built = []
    for index, (name, model) in enumerate(found["models"].items()):
        mine = []
        for place, row in enumerate(model["attributions"]):
            figure = None
            if row["refused"] is None and decades is not None:
                values = row["deviation"]["euclidean"]["values"]
                figure = scatter(values, decades, _title(name, row))
            mine.append(Panel(name, row, figure, samples(summary, arrays, index, place)))
        built.append((name, mine))
    return built


def _title(name: str, row: dict[str, Any]) -> str:
    parts = []
    for kind in ("linearized", "certified"):
        bound = row["deviation"]["euclidean"][kind]
        if bound is not None and bound["ratio"] is not None:
            parts.append(
                f"attack / {kind} bound: median {number(bound['ratio']['0.5']['value'])}, "
                f"largest {number(bound['largest'])}"
            )
    return f"{name}, {row['name']}: Euclidean deviation, attack against bound. {'; '.join(parts) or 'No bound'}."


def samples(summary: Summary, arrays: Arrays, model: int, place: int) -> list[Sample]:
    """The samples of one model and attribution, in the order of the data."""
    row = list(summary["explained"]["models"].values())[model]["attributions"][place]
    factor, name = reduction(arrays), f"explained_{model}_{place}"
    return [_sample(summary, arrays, name, i, caption, factor) for i, caption in enumerate(row["samples"])]


def _sample(summary: Summary, arrays: Arrays, name: str, row: int, caption: dict[str, Any], factor: int) -> Sample:
    low, high = summary["explained"]["threat"]["bounds"]
    images = [picture(arrays[key][row]) for key in ("clean_explained", f"adversarial_{name}")]
    maps = [plane(arrays[f"map_{state}_{name}"][row]) for state in ("clean", "adversarial")]
    marks = plane(arrays[f"map_marks_{name}"][row]).round()
    top = max(float(values.max(initial=0.0)) for values in maps)
    classes = summary["data"]["classes"]
    said = name_of(caption["prediction"], classes)
    sure = [percent(caption[f"{state}_confidence"]) for state in ("clean", "adversarial")]
    who = f"Sample {caption['id']}, labeled {name_of(caption['label'], classes)}"
    groups = []
    for title, image, text in zip(("image", "pushed"), images, (f"{said} · {sure[0]}", f"still {said} · {sure[1]}")):
        shown = pixels.uri(pixels.image(pixels.reduce(image, factor), low, high))
        groups.append((title, text, [Picture(shown, f"{who}, {title}: predicted {text}")]))
    for title, values in (("map before", maps[0]), ("map after", maps[1]), ("difference", maps[1] - maps[0])):
        shown = pixels.uri(pixels.change(pixels.reduce(values, factor)[None], top))
        largest = number(float(np.abs(values).max(initial=0.0)))
        alt = f"{who}: {title}, largest value {largest}, drawn from -{number(top)} to {number(top)}"
        groups.append((title, f"±{number(top)}", [Picture(shown, alt)]))
    if f"map_salience_{name}" in arrays:
        salience = plane(arrays[f"map_salience_{name}"][row])
        end = float(salience.max(initial=0.0))
        shown = pixels.uri(pixels.change(pixels.reduce(salience, factor)[None], end))
        alt = f"{who}: what blurring each place does to the logits of the model itself, largest value {number(end)}"
        groups.append(("model blurred", f"up to {number(end)}", [Picture(shown, alt)]))
    counts = [int((marks == mark).sum()) for mark in (4, 3, 2)]
    certain = "" if caption["certain"] is None else f", {caption['certain']} for certain"
    text = f"{counts[0] + counts[1]} of {sum(counts)} stay{certain}"
    alt = f"{who}: the {sum(counts)} largest pixels of the map, {text}"
    groups.append(("top 10 %", text, [Picture(pixels.uri(_marked(marks[::factor, ::factor])), alt)]))
    return Sample(
        title=f"{caption['id']}, label {name_of(caption['label'], classes)}",
        outcome=f"predicted {said} before and after; pushed by the attack that raises {GOALS[caption['goal']]}",
        changed=counts[2] > 0,
        groups=groups,
    )


def _marked(marks: Array) -> bytes:
    """A PNG of marks (H, W) from 0 to 4."""
    from PIL import Image

    colors = (_GROUND, *(color for color, _ in reversed(MARKS)))
    image = Image.fromarray(marks.astype(np.uint8))
    image.putpalette(b"".join(bytes.fromhex(color[1:]) for color in colors))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
