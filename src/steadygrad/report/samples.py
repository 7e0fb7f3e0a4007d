"""Samples with their pictures: under attack, and with the maps that explain them, each with an alternative text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from steadygrad.report import png
from steadygrad.report.blocks import Sample
from steadygrad.report.png import Array, Arrays, Picture
from steadygrad.report.wording import number, percent, spaced

if TYPE_CHECKING:
    from steadygrad.audit.schema import PicturedSample, Summary
    from steadygrad.audit.schema_maps import AttackedSample

__all__ = ["GOALS", "MARKS", "attacked_maps", "attacked_samples", "planes", "reduction", "scale"]

GOALS = {
    "top-k": "the loss of the top 10\N{NO-BREAK SPACE}%",
    "mass-center": "the shift of the center of mass",
    "cosine": "the angle",
    "euclidean": "the distance",
}
"""What an attack on a map raises, in words."""
MARKS = (("#16191c", "certain to stay"), ("#0b6aa2", "stays"), ("#e07b39", "leaves"), ("#f4c7a4", "comes in"))
"""Colors and meanings of the marks 4, 3, 2 and 1 of top pixels; told apart by lightness too."""
_GROUND = "#f4f5f6"
# Pixels and color channels that may go into one page, as bytes of incompressible PNG.
_ROOM = 1_600_000


def reduction(arrays: Arrays) -> int:
    """The factor by which pictures are reduced for the page, so that it stays small; 1 for small images."""
    stored = sum(
        a.size * (1.5 if name.startswith("clean_") else 1.0)
        for name, a in arrays.items()
        if name == "grid" or name.startswith(("clean_", "adversarial_", "map_"))
    )
    return max(1, math.ceil(math.sqrt(stored / _ROOM)))


def scale(arrays: Arrays, model: int) -> float:
    """The largest change of any pixel in a model's pictures: the end of its symmetric scale."""
    return float(np.abs(arrays[f"adversarial_{model}"] - arrays[f"clean_{model}"]).max(initial=0.0))


def planes(values: Array, dimensions: int) -> Array:
    """A sample as (C, H, W), or a map as (H, W); features without a plane, (D,), are one row of pixels."""
    return values if values.ndim == dimensions else values.reshape(*[1] * (dimensions - 1), -1)


def attacked_samples(summary: Summary, arrays: Arrays, model: int) -> list[Sample]:
    """The pictured samples of one model, in the order of the summary; none without a gallery."""
    rows = summary.gallery.models.get(summary.models[model].name, []) if summary.gallery is not None else []
    return [_attacked(summary, arrays, model, place, row) for place, row in enumerate(rows)]


def _attacked(summary: Summary, arrays: Arrays, model: int, place: int, row: PicturedSample) -> Sample:
    assert summary.gallery is not None
    factor, top = reduction(arrays), scale(arrays, model)
    clean, adversarial = (planes(arrays[f"{state}_{model}"][place], 3) for state in ("clean", "adversarial"))
    delta = adversarial - clean
    largest = number(_largest(delta))
    who = f"Sample {row.id}, labeled {row.label}"
    groups = []
    for title, pixels, prediction, confidence in (
        ("clean", clean, row.clean_prediction, row.clean_confidence),
        ("perturbed", adversarial, row.adversarial_prediction, row.adversarial_confidence),
    ):
        said = f"{prediction} · {percent(confidence)}"
        shown = png.image(png.reduce(pixels, factor), *summary.threat.bounds)
        groups.append((title, said, [Picture(shown, f"{who}, {title}: predicted {said}")]))
    alt = f"{who}: perturbation, largest change of a pixel {largest}, drawn from -{number(top)} to {number(top)}"
    shown = png.change(png.reduce(delta, factor), top)
    groups.append(("perturbation", f"up to ±{largest}" if delta.any() else "none", [Picture(shown, alt)]))
    for index, name in enumerate(map(spaced, summary.gallery.attributions)):
        maps = [planes(arrays[f"map_{state}_{model}_{index}"][place], 2) for state in ("clean", "adversarial")]
        end = max(map(_largest, maps))
        pictures = [
            Picture(
                png.map_(png.reduce(values, factor), end),
                f"{who}: {name} {when} the attack, largest value {number(_largest(values))}, "
                f"drawn from 0 to {number(end)}",
            )
            for values, when in zip(maps, ("before", "after"), strict=True)
        ]
        groups.append((f"{name}, before → after", f"scale 0 to {number(end)}", pictures))
    changed = row.clean_prediction != row.adversarial_prediction
    return Sample(f"{row.id}, label {row.label}", _outcome(row, changed), changed, groups)


def _outcome(row: PicturedSample, changed: bool) -> str:
    if row.clean_prediction != row.label:
        return "wrong before any attack"
    if not changed:
        return f"{row.attack} did not change this prediction" if row.attack else "no attack changed this prediction"
    by = f" by {row.attack}" if row.attack else ""
    return f"changed{by}" + ("" if row.distance is None else f" at distance {number(row.distance)}")


def attacked_maps(summary: Summary, arrays: Arrays, model: int, place: int, rows: list[AttackedSample]) -> list[Sample]:
    """The pictured samples of one model and attribution, whose maps were attacked, in the order of the data."""
    return [_attacked_map(summary, arrays, f"explained_{model}_{place}", i, row) for i, row in enumerate(rows)]


def _attacked_map(summary: Summary, arrays: Arrays, name: str, place: int, row: AttackedSample) -> Sample:
    assert summary.explained is not None
    factor = reduction(arrays)
    before, after = (planes(arrays[f"map_{state}_{name}"][place], 2) for state in ("clean", "adversarial"))
    marks = planes(arrays[f"map_marks_{name}"][place], 2).round()
    top = max(_largest(before), _largest(after))
    who = f"Sample {row.id}, labeled {row.label}"
    groups = []
    for title, key, said in (
        ("image", "clean_explained", f"{row.prediction} · {percent(row.clean_confidence)}"),
        ("attacked", f"adversarial_{name}", f"still {row.prediction} · {percent(row.adversarial_confidence)}"),
    ):
        pixels = planes(arrays[key][place], 3)
        shown = png.image(png.reduce(pixels, factor), *summary.explained.threat.bounds)
        groups.append((title, said, [Picture(shown, f"{who}, {title}: predicted {said}")]))
    for title, values in (("map before", before), ("map after", after), ("difference", after - before)):
        shown = png.change(png.reduce(values, factor)[None], top)
        largest = number(_largest(values))
        alt = f"{who}: {title}, largest value {largest}, drawn from -{number(top)} to {number(top)}"
        groups.append((title, f"±{number(top)}", [Picture(shown, alt)]))
    if f"map_salience_{name}" in arrays:
        salience = planes(arrays[f"map_salience_{name}"][place], 2)
        end = _largest(salience)
        shown = png.change(png.reduce(salience, factor)[None], end)
        alt = f"{who}: what blurring each place does to the logits of the model itself, largest value {number(end)}"
        groups.append(("model blurred", f"up to {number(end)}", [Picture(shown, alt)]))
    certain, stay, leave = (int((marks == mark).sum()) for mark in (4, 3, 2))
    total = certain + stay + leave
    text = f"{certain + stay} of {total} stay" + ("" if row.certain is None else f", {row.certain} for certain")
    shown = png.indexed(marks[::factor, ::factor], (_GROUND, *(color for color, _ in reversed(MARKS))))
    alt = f"{who}: the {total} largest pixels of the map, {text}"
    groups.append(("top 10 %", text, [Picture(shown, alt)]))
    outcome = f"predicted {row.prediction} before and after; moved by the attack that raises {GOALS[row.goal]}"
    return Sample(f"{row.id}, label {row.label}", outcome, leave > 0, groups)


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))
