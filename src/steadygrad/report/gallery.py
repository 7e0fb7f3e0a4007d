"""What the gallery shows: every sample with its pictures, captions and alternative texts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from steadygrad.report import pixels
from steadygrad.report.reading import Array, Arrays, Summary
from steadygrad.report.wording import number, percent

__all__ = ["Picture", "Sample", "grid", "name_of", "picture", "plane", "reduction", "samples", "scale"]

# Pixels and color channels that may go into one page, as bytes of incompressible PNG.
_ROOM = 1_600_000


@dataclass(frozen=True)
class Picture:
    """One picture: its PNG as a data URI, and the text that says what it shows."""

    source: str
    alt: str


@dataclass(frozen=True)
class Sample:
    """One sample under attack: the heading, the outcome in a sentence, and groups of pictures with captions."""

    title: str
    outcome: str
    changed: bool
    groups: list[tuple[str, str, list[Picture]]]  # caption, second line, pictures


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
    clean, adversarial = arrays[f"clean_{model}"], arrays[f"adversarial_{model}"]
    return float(np.abs(adversarial - clean).max(initial=0.0))


def samples(summary: Summary, arrays: Arrays, model: int) -> list[Sample]:
    """The samples of one model, in the order of the summary; none without a gallery."""
    gallery = summary["gallery"]
    entries = gallery["models"].get(summary["models"][model]["name"], []) if gallery else []
    factor = reduction(arrays)
    top = scale(arrays, model) if entries else 0.0
    return [_sample(summary, arrays, model, row, entry, top, factor) for row, entry in enumerate(entries)]


def _sample(
    summary: Summary, arrays: Arrays, model: int, row: int, entry: dict[str, Any], top: float, factor: int
) -> Sample:
    low, high = summary["threat"]["bounds"]
    clean, adversarial = (picture(arrays[f"{state}_{model}"][row]) for state in ("clean", "adversarial"))
    delta = adversarial - clean
    largest = float(np.abs(delta).max(initial=0.0))
    classes = summary["data"]["classes"]
    before = f"{name_of(entry['clean_prediction'], classes)} · {percent(entry['clean_confidence'])}"
    after = f"{name_of(entry['adversarial_prediction'], classes)} · {percent(entry['adversarial_confidence'])}"
    who = f"Sample {entry['id']}, labeled {name_of(entry['label'], classes)}"
    groups = [
        ("clean", before, [_shown(clean, low, high, factor, f"{who}, clean: predicted {before}")]),
        ("perturbed", after, [_shown(adversarial, low, high, factor, f"{who}, perturbed: predicted {after}")]),
        (
            "perturbation",
            f"up to ±{number(largest)}" if largest else "none",
            [
                Picture(
                    pixels.uri(pixels.change(pixels.reduce(delta, factor), top)),
                    f"{who}: perturbation, largest change of a pixel {number(largest)}, drawn from "
                    f"-{number(top)} to {number(top)}",
                )
            ],
        ),
    ]
    for index, name in enumerate(summary["gallery"]["attributions"]):
        maps = [plane(arrays[f"map_{state}_{model}_{index}"][row]) for state in ("clean", "adversarial")]
        groups.append(_attribution(maps, str(name).replace("_", " "), factor, who))
    return Sample(
        title=f"{entry['id']}, label {name_of(entry['label'], classes)}",
        outcome=_outcome(entry, classes),
        changed=_changed(entry),
        groups=groups,
    )


def _changed(entry: dict[str, Any]) -> bool:
    return bool(entry["clean_prediction"] != entry["adversarial_prediction"])


def _outcome(entry: dict[str, Any], classes: list[Any]) -> str:
    if name_of(entry["clean_prediction"], classes) != name_of(entry["label"], classes):
        return "wrong before any attack"
    if not _changed(entry):
        return f"{entry['attack'] or 'no attack'} {'did not change' if entry['attack'] else 'changed'} this prediction"
    by = f" by {entry['attack']}" if entry["attack"] else ""
    return f"changed{by}" + ("" if entry["distance"] is None else f" at distance {number(entry['distance'])}")


def _attribution(maps: list[Array], name: str, factor: int, who: str) -> tuple[str, str, list[Picture]]:
    top = max(float(values.max(initial=0.0)) for values in maps)
    pictures = [
        Picture(
            pixels.uri(pixels.map_(pixels.reduce(values, factor), top)),
            f"{who}: {name} {when} the attack, largest value {number(float(values.max(initial=0.0)))}, "
            f"drawn from 0 to {number(top)}",
        )
        for values, when in zip(maps, ("before", "after"), strict=True)
    ]
    return f"{name}, before → after", f"scale 0 to {number(top)}", pictures


def grid(summary: Summary, arrays: Arrays) -> list[tuple[str, list[tuple[Picture, bool | None]]]]:
    """The original x target grid: per original class its name and the cells (picture, reached the target or None)."""
    found = summary["gallery"]["grid"] if summary["gallery"] else None
    if found is None:
        return []
    low, high = summary["threat"]["bounds"]
    factor, names = reduction(arrays), [str(name) for name in found["classes"]]
    rows = []
    for r, row in enumerate(found["success"]):
        cells = []
        for k, reached in enumerate(row):
            what = {None: "the original", True: "target reached", False: "target not reached"}[reached]
            alt = f"A {names[r]} changed towards {names[k]}: {what}" if reached is not None else f"A {names[r]}: {what}"
            cells.append((_shown(picture(arrays["grid"][r, k]), low, high, factor, alt), reached))
        rows.append((names[r], cells))
    return rows


def name_of(label: int | str, classes: list[Any]) -> str:
    """The name of a class given by index; a name stays as it is."""
    if isinstance(label, int) and 0 <= label < len(classes):
        return str(classes[label])
    return str(label)


def _shown(values: Array, low: float, high: float, factor: int, alt: str) -> Picture:
    return Picture(pixels.uri(pixels.image(pixels.reduce(values, factor), low, high)), alt)


def picture(values: Array) -> Array:
    """A sample as (C, H, W); features without a plane, (D,), are shown as one row of pixels."""
    return values if values.ndim == 3 else values.reshape(1, 1, -1)


def plane(values: Array) -> Array:
    """A map as (H, W), or one row."""
    return values if values.ndim == 2 else values.reshape(1, -1)
