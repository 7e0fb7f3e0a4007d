"""Samples with their pictures: under attack, and with the maps that explain them, each with an alternative text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from steadygrad.report import png
from steadygrad.report.blocks import Sample
from steadygrad.report.png import Array, Arrays, Picture
from steadygrad.report.wording import number, percent, spaced

if TYPE_CHECKING:
    from steadygrad.audit.schema import PicturedSample, Summary
    from steadygrad.audit.schema_maps import AttackedSample

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
    return _largest(arrays[f"adversarial_{model}"] - arrays[f"clean_{model}"])


def planes(values: Array, dimensions: int) -> Array:
    """A sample as (C, H, W), or a map as (H, W); features without a plane, (D,), are one row of pixels."""
    return values if values.ndim == dimensions else values.reshape(*[1] * (dimensions - 1), -1)


@dataclass(frozen=True)
class _Strip:
    """The pictures of one sample, the one at a place of the arrays, in groups with a caption and a second line."""

    arrays: Arrays
    place: int
    row: PicturedSample | AttackedSample
    bounds: tuple[float, float]
    groups: list[tuple[str, str, list[Picture]]] = field(default_factory=list)

    def values(self, name: str, dimensions: int = 2) -> Array:
        return planes(self.arrays[name][self.place], dimensions)

    def reduced(self, values: Array) -> Array:
        return png.reduce(values, reduction(self.arrays))

    def picture(self, source: str, words: str) -> Picture:
        return Picture(source, f"Sample {self.row.id}, labeled {self.row.label}{words}")

    def add(self, title: str, below: str, source: str, words: str) -> None:
        self.groups.append((title, below, [self.picture(source, words)]))

    def image(self, title: str, name: str, below: str) -> None:
        source = png.image(self.reduced(self.values(name, 3)), *self.bounds)
        self.add(title, below, source, f", {title}: predicted {below}")

    def change(self, title: str, below: str, values: Array, top: float, words: str) -> None:
        self.add(title, below, png.change(self.reduced(values), top), f": {words}")

    def sample(self, outcome: str, changed: bool) -> Sample:
        return Sample(f"{self.row.id}, label {self.row.label}", outcome, changed, self.groups)


def attacked_samples(summary: Summary, arrays: Arrays, model: int) -> list[Sample]:
    """The pictured samples of one model, in the order of the summary; none without a gallery."""
    rows = summary.gallery.models.get(summary.models[model].name, []) if summary.gallery is not None else []
    return [_attacked(summary, arrays, model, place, row) for place, row in enumerate(rows)]


def _attacked(summary: Summary, arrays: Arrays, model: int, place: int, row: PicturedSample) -> Sample:
    assert summary.gallery is not None
    strip, top = _Strip(arrays, place, row, summary.threat.bounds), scale(arrays, model)
    delta = strip.values(f"adversarial_{model}", 3) - strip.values(f"clean_{model}", 3)
    largest, end = number(_largest(delta)), number(top)
    strip.image("clean", f"clean_{model}", f"{row.clean_prediction} · {percent(row.clean_confidence)}")
    sure = percent(row.adversarial_confidence)
    strip.image("perturbed", f"adversarial_{model}", f"{row.adversarial_prediction} · {sure}")
    words = f"perturbation, largest change of a pixel {largest}, drawn from -{end} to {end}"
    strip.change("perturbation", f"up to ±{largest}" if delta.any() else "none", delta, top, words)
    for index, name in enumerate(map(spaced, summary.gallery.attributions)):
        if f"map_clean_{model}_{index}" not in arrays:  # a model without gradients has none
            continue
        maps = [strip.values(f"map_{state}_{model}_{index}") for state in ("clean", "adversarial")]
        top = max(map(_largest, maps))
        shown = []
        for values, when in zip(maps, ("before", "after"), strict=True):
            ends = f"largest value {number(_largest(values))}, drawn from 0 to {number(top)}"
            shown.append(strip.picture(png.map_(strip.reduced(values), top), f": {name} {when} the attack, {ends}"))
        strip.groups.append((f"{name}, before → after", f"scale 0 to {number(top)}", shown))
    changed = row.clean_prediction != row.adversarial_prediction
    return strip.sample(_outcome(row, changed), changed)


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
    strip = _Strip(arrays, place, row, summary.explained.threat.bounds)
    before, after = (strip.values(f"map_{state}_{name}") for state in ("clean", "adversarial"))
    top = max(_largest(before), _largest(after))
    end = number(top)
    strip.image("image", "clean_explained", f"{row.prediction} · {percent(row.clean_confidence)}")
    sure = percent(row.adversarial_confidence)
    strip.image("attacked", f"adversarial_{name}", f"still {row.prediction} · {sure}")
    for title, values in (("map before", before), ("map after", after), ("difference", after - before)):
        words = f"{title}, largest value {number(_largest(values))}, drawn from -{end} to {end}"
        strip.change(title, f"±{end}", values[None], top, words)
    if f"map_salience_{name}" in arrays:
        salience = strip.values(f"map_salience_{name}")
        top = _largest(salience)
        words = f"what blurring each place does to the logits of the model itself, largest value {number(top)}"
        strip.change("model blurred", f"up to {number(top)}", salience[None], top, words)
    marks, factor = strip.values(f"map_marks_{name}").round(), reduction(arrays)
    certain, stay, leave = (int((marks == mark).sum()) for mark in (4, 3, 2))
    total = certain + stay + leave
    text = f"{certain + stay} of {total} stay" + ("" if row.certain is None else f", {row.certain} for certain")
    source = png.indexed(marks[::factor, ::factor], (_GROUND, *(color for color, _ in reversed(MARKS))))
    strip.add("top 10 %", text, source, f": the {total} largest pixels of the map, {text}")
    outcome = f"predicted {row.prediction} before and after; moved by the attack that raises {GOALS[row.goal]}"
    return strip.sample(outcome, leave > 0)


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))
