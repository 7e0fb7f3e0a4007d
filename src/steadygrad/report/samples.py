"""Samples with their pictures: under attack, and with the maps that explain them, each with an alternative text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from steadygrad.report import png
from steadygrad.report.blocks import PictureGroup, Sample, Step
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
# Pixels and color channels that may go into one page, as bytes of incompressible PNG; and as many along sliders.
_ROOM = 1_600_000


def reduction(arrays: Arrays) -> int:
    """The factor by which pictures are reduced for the page, so that it stays small; 1 for small images."""
    still = _stored(arrays, {"grid": 1.0, "clean_": 1.5, "adversarial_": 1.0, "map_": 1.0})
    moving = _stored(arrays, {"along_map_": 1.0, "along_": 2.0})
    return max(1, math.ceil(math.sqrt(max(still, moving) / _ROOM)))


def _stored(arrays: Arrays, weights: dict[str, float]) -> float:
    """Entries of arrays, by the first beginning of their names that fits, each as often as it is drawn."""
    return sum(
        array.size * next((weight for start, weight in weights.items() if name.startswith(start)), 0.0)
        for name, array in arrays.items()
    )


def scale(arrays: Arrays, model: int) -> float:
    """The largest change of any pixel in a model's pictures: the end of its symmetric scale."""
    clean = arrays[f"clean_{model}"]
    largest = _largest(arrays[f"adversarial_{model}"] - clean)
    if (along := arrays.get(f"along_{model}")) is None:
        return largest
    return max(largest, _largest(along - clean[: len(along), None]))


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
    groups: list[PictureGroup] = field(default_factory=list)

    def values(self, name: str, dimensions: int = 2) -> Array:
        return planes(self.arrays[name][self.place], dimensions)

    def reduced(self, values: Array) -> Array:
        return png.reduce(values, reduction(self.arrays))

    def picture(self, source: str, words: str) -> Picture:
        return Picture(source, f"Sample {self.row.id}, labeled {self.row.label}{words}")

    def add(self, title: str, below: str, source: str, words: str) -> None:
        self.groups.append((title, below, [self.picture(source, words)]))

    def image(self, title: str, values: Array, below: str) -> None:
        source = png.image(self.reduced(values), *self.bounds)
        self.add(title, below, source, f", {title}: predicted {below}")

    def change(self, title: str, below: str, values: Array, top: float, words: str) -> None:
        self.add(title, below, png.change(self.reduced(values), top), f": {words}")

    def map_(self, name: str, when: str, values: Array, top: float) -> Picture:
        ends = f"largest value {number(_largest(values))}, drawn from 0 to {number(top)}"
        return self.picture(png.map_(self.reduced(values), top), f": {name} {when} the attack, {ends}")


@dataclass(frozen=True)
class _State:
    """A sample as it is, or as an attack left it: an input (C, H, W), its maps by attribution, and the prediction."""

    inputs: Array
    maps: dict[str, Array]
    prediction: str
    confidence: float

    @property
    def said(self) -> str:
        return f"{self.prediction} · {percent(self.confidence)}"


def attacked_samples(summary: Summary, arrays: Arrays, model: int) -> list[Sample]:
    """The pictured samples of one model, in the order of the summary; none without a gallery."""
    rows = summary.gallery.models.get(summary.models[model].name, []) if summary.gallery is not None else []
    return [_attacked(summary, arrays, model, place, row) for place, row in enumerate(rows)]


def _attacked(summary: Summary, arrays: Arrays, model: int, place: int, row: PicturedSample) -> Sample:
    assert summary.gallery is not None
    # A model without gradients has no maps.
    kinds = {spaced(name): f"{model}_{index}" for index, name in enumerate(summary.gallery.attributions)}
    kinds = {name: kind for name, kind in kinds.items() if f"map_clean_{kind}" in arrays}

    def strip() -> _Strip:
        return _Strip(arrays, place, row, summary.threat.bounds)

    def state(name: str, prediction: str, confidence: float) -> _State:
        maps = {n: strip().values(f"map_{name}_{kind}") for n, kind in kinds.items()}
        return _State(strip().values(f"{name}_{model}", 3), maps, prediction, confidence)

    def step(at: int) -> _State:
        maps = {n: strip().values(f"along_map_{kind}", 3)[at] for n, kind in kinds.items()}
        return _State(arrays[f"along_{model}"][place, at], maps, row.steps[at].prediction, row.steps[at].confidence)

    clean = state("clean", row.clean_prediction, row.clean_confidence)
    counted = state("adversarial", row.adversarial_prediction, row.adversarial_confidence)
    along = [clean, *map(step, range(len(row.steps)))] if row.steps else []
    top = scale(arrays, model)
    tops = {name: max(_largest(s.maps[name]) for s in (clean, counted, *along)) for name in kinds}

    def groups(reached: _State) -> list[PictureGroup]:
        drawn, delta = strip(), reached.inputs - clean.inputs
        drawn.image("perturbed", reached.inputs, reached.said)
        largest, scaled = number(_largest(delta)), number(top)
        words = f"perturbation, largest change of a pixel {largest}, drawn from -{scaled} to {scaled}"
        drawn.change("perturbation", f"up to ±{largest}" if delta.any() else "none", delta, top, words)
        for name, end in tops.items():
            after = drawn.map_(name, "after", reached.maps[name], end)
            drawn.groups.append((f"{name}, before → after", f"scale 0 to {number(end)}", [after]))
        return drawn.groups

    first = strip()
    first.image("clean", clean.inputs, clean.said)
    first.groups.extend(groups(counted))
    for at, (name, end) in enumerate(tops.items(), len(first.groups) - len(tops)):
        title, below, shown = first.groups[at]
        first.groups[at] = title, below, [first.map_(name, "before", clean.maps[name], end), *shown]
    radii = [0.0, *(s.eps for s in row.steps)]
    steps = [Step(number(eps), groups(s)) for eps, s in zip(radii, along, strict=False)]
    start = min(range(len(radii)), key=lambda i: abs(radii[i] - summary.threat.eps))
    changed = row.clean_prediction != row.adversarial_prediction
    return Sample(_titled(row), _outcome(row, changed), changed, first.groups, steps, start)


def _titled(row: PicturedSample | AttackedSample) -> str:
    return f"{row.id}, label {row.label}"


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
    strip.image("image", strip.values("clean_explained", 3), f"{row.prediction} · {percent(row.clean_confidence)}")
    sure = percent(row.adversarial_confidence)
    strip.image("attacked", strip.values(f"adversarial_{name}", 3), f"still {row.prediction} · {sure}")
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
    return Sample(_titled(row), outcome, leave > 0, strip.groups)


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))
