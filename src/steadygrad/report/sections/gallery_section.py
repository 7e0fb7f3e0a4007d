"""The gallery: single samples under attack, and every class changed towards every other one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadygrad.report import png
from steadygrad.report.blocks import Block, Folded, Heading, Items, Pictures, Samples, Text, legend, small
from steadygrad.report.png import Picture
from steadygrad.report.run_folder import Run
from steadygrad.report.samples import attacked_samples, planes, reduction, scale
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import number

if TYPE_CHECKING:
    from steadygrad.audit.schema import Grid


def blocks(run: Run) -> list[Block]:
    """The samples of each model, the first ones opened, and the grid of classes."""
    gallery, shape = run.summary.gallery, run.summary.data.shape
    if gallery is None:
        words = f"No pictures: samples of shape {' × '.join(map(str, shape))} are no images."
        return [Text(words)] if len(shape) != 3 else []
    folded: list[Block] = []
    for index, model in enumerate(run.summary.models):
        if rows := attacked_samples(run.summary, run.arrays, index):
            top = number(scale(run.arrays, index))
            changed = sum(row.changed for row in rows)
            note = f"{changed} of {len(rows)} shown were changed; perturbations drawn from −{top} to +{top}"
            folded.append(Folded(model.name, [Samples(rows)], small(note), open=not folded))
    shown = [*(_key(run, bool(gallery.attributions)) if folded else []), *folded]
    if gallery.grid is not None:
        shown += [Heading("From every class to every class"), _grid(run, gallery.grid)]
    return shown


def _key(run: Run, maps: bool) -> list[Block]:
    text = "What an attack did to single samples, with the prediction and its confidence"
    text += ", and how the explanation of the predicted class moved." if maps else "."
    if any(name.startswith("along_") for name in run.arrays):
        text += " A slider shows where the search of this attack ends at other radii, fooled or not."
    if (factor := reduction(run.arrays)) > 1:
        text += f" Pictures are averaged over blocks of {factor} × {factor} pixels for this page"
        text += "; the run folder has the full ones."
    shape = run.summary.data.shape
    if len(shape) == 3 and shape[0] not in (1, 3):
        text += f" Images of {shape[0]} channels are shown as the mean of their channels."
    colors = "blue darker, white unchanged, red brighter; ends of the scale with each model."
    if shape[0] == 3:
        colors = "each color channel about middle gray (unchanged), ends of the scale with each model."
    keys = [legend("ramp change", f"Perturbation: {colors}")]
    if maps:
        words = "Explanation: light nothing, dark much; before and after on one scale, given below each pair."
        keys.append(legend("ramp map", words))
    return [Text(text), Items(keys, "keys")]


def _grid(run: Run, grid: Grid) -> Pictures:
    """Original classes as rows, targets as columns."""
    factor, names = reduction(run.arrays), grid.classes
    rows = []
    for r, flags in enumerate(grid.success):
        cells = []
        for k, reached in enumerate(flags):
            alt = f"A {names[r]}: the original"
            if reached is not None:
                alt = f"A {names[r]} changed towards {names[k]}: target {'' if reached else 'not '}reached"
            pixels = png.reduce(planes(run.arrays["grid"][r, k], 3), factor)
            source = png.image(pixels, *run.summary.threat.bounds)
            cells.append(Picture(source, alt, good=reached, framed=reached is None))
        rows.append((names[r], cells))
    return Pictures(
        f"{grid.model}, {grid.attack}: one sample per class (row) changed towards every other class (column). ✓ the "
        "target was reached, ✗ it was not; the framed diagonal holds the originals.",
        [small("from \\ to"), *names],
        rows,
    )


SECTION = ReportSection(80, "gallery", "Gallery", "Gallery", "gallery", blocks)
