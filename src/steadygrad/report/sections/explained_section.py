"""How far explanations can be moved: attacks beside random noise and bounds, faithfulness, and the first samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from steadygrad.report import blocks as page
from steadygrad.report.blocks import Block, Cell, Inline, Row, Table, Text, html, legend, missing, small
from steadygrad.report.cells import DASH, ranged, share
from steadygrad.report.run_folder import Run
from steadygrad.report.samples import GOALS, MARKS, attacked_maps
from steadygrad.report.scatter import limits, scatter
from steadygrad.report.sections import ReportSection
from steadygrad.report.style import inline
from steadygrad.report.terminal import listed
from steadygrad.report.wording import NOT_MEASURED, number, percent, spaced, threat

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from steadygrad.audit.schema_maps import AttackedMap, AttackedMaps, Bound, Explained, Way

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
    "deletion gain": ("Gain of deletion", "more is better"),
    "insertion": ("Insertion", "more is better"),
    "gini": ("Sparsity", "Gini"),
}
_WAYS: dict[Way, str] = {
    "attack": "attack",
    "noise": "random noise",
    "own_attack": "own map, attack",
    "own_noise": "own map, random noise",
}


def blocks(run: Run) -> list[Block]:
    """Tables of similarities, bounds and faithfulness, a figure per map, and the pictures."""
    found = run.summary.explained
    if found is None:
        return []
    goals = ", ".join(GOALS[goal] for goal in found.goals)
    starts = f"{found.restarts} {'start' if found.restarts == 1 else 'starts'}"
    return [
        Text(
            f"Changes within {threat(found.threat)} that leave the prediction as it is and are made to move the map "
            f"that explains it, on the first {found.samples:,} samples of the draw. Attacks raise {goals} "
            f"({found.steps} steps, {starts}); beside them random noise, the worst of {found.draws} points."
        ),
        *_surrogates(found),
        _similarities(found),
        *_nearness(found),
        page.Heading("Attack, linearized bound, certified bound"),
        _bounds(found),
        *_no_bounds(found),
        *_figures(found),
        *_faithful(found),
        *_pictures(run, found),
    ]


def _measured(found: Explained) -> Iterator[tuple[str, AttackedMap]]:
    """Model and row of everything that could be measured."""
    for name, model in found.models.items():
        yield from ((name, row) for row in model.attributions if row.refused is None)


def _by_map(
    found: Explained,
    caption: Inline,
    head: Sequence[Inline],
    rows: Callable[[AttackedMap], list[Row]],
    title: Callable[[str, AttackedMaps], Inline] = lambda name, model: name,
    reasons: bool = False,
    style: str = "",
) -> Table:
    """A table with a group per model and the rows of each of its maps; what was refused has one row that says so."""
    groups = []
    for name, model in found.models.items():
        made: list[Row] = []
        for row in model.attributions:
            if row.refused is None:
                made += rows(row)
            else:
                made.append(_whole_row(row.name, head, row.refused if reasons else None))
        groups.append(page.Group(title(name, model), made))
    return Table(caption, head, groups=groups, style=style)


def _whole_row(name: str, head: Sequence[Inline], reason: str | None = None) -> Row:
    text = missing() if reason is None else html("{} {}", missing("not measured:"), reason)
    return spaced(name), [Cell(text, span=len(head) - 1, kind="words")]


def _surrogates(found: Explained) -> list[Block]:
    betas = {name: model.beta for name, model in found.models.items() if model.beta is not None}
    if not betas:
        return []
    words = html(
        "<strong>Surrogates:</strong> the map of a network of rectifiers has no derivative that an attack or a bound "
        "could use. For {}, the numbers and pictures of this section, where they do not say otherwise, are of a "
        "surrogate, the same weights with softplus (β = {}) in place of the rectifiers. Rows with “own map” say what "
        "the same points do to the map of the model itself where it keeps its prediction too.",
        ", ".join(betas),
        number(next(iter(betas.values()))),
    )
    return [Text(words)]


def _similarities(found: Explained) -> Table:
    def rows(row: AttackedMap) -> list[Row]:
        made: list[Row] = []
        for way, words in _WAYS.items():
            if cells := [_similar(row, s, way) for s in found.similarities if way in row.similarity[s]]:
                moved = share(row.moved[way]) if way in row.moved else DASH
                made.append((f"{spaced(row.name)}, {words}", [*cells, moved]))
        return made

    def title(name: str, model: AttackedMaps) -> Inline:
        softplus = small(f"softplus (β = {number(model.beta)}) in place of the rectifiers")
        return name if model.beta is None else html("{} {}", name, softplus)

    caption = html(
        "Map before against map after: the worst per sample over all attacks, then the mean, with its 95 % interval. 1 "
        "is the same map; the center of mass shifts by a share of the diagonal, 0 is none. <em>Attack:</em> these maps "
        "were reached; the worst may be worse. Moved: at least one of the {} largest of {} pixels was replaced while "
        "the prediction stayed.",
        f"{found.pixels['top']:,}",
        f"{found.pixels['all']:,}",
    )
    head = ["Explanation", *(SIMILARITIES[s] for s in found.similarities), "Moved"]
    return _by_map(found, caption, head, rows, title, reasons=True)


def _similar(row: AttackedMap, similarity: str, way: Way) -> Cell:
    form = ".3f" if similarity in ("cosine", "mass_center_displacement") else ".2f"
    return ranged(row.similarity[similarity][way], form)


def _nearness(found: Explained) -> list[Block]:
    """How near the surrogates are to the models themselves."""
    parts: dict[str, list[str]] = {}
    for name, row in _measured(found):
        if (near := row.surrogate) is not None:
            first = [] if name in parts else [f"the same prediction for {percent(near.same_prediction.value)}"]
            alike = f"top 10 % in common with the model’s own {spaced(row.name)} {near.alike.value:.2f}"
            parts.setdefault(name, []).extend([*first, alike])
    if not parts:
        return []
    words = "; ".join(f"{name}: {', '.join(said)}" for name, said in parts.items())
    return [Text(f"How near the surrogates are without any change: {words}.", "note")]


def _bounds(found: Explained) -> Table:
    def rows(row: AttackedMap) -> list[Row]:
        made: list[Row] = []
        for distance, deviation in row.deviation:
            both = (deviation.linearized, deviation.certified)
            cells = [ranged(deviation.attack), *(_bound(bound, found.samples) for bound in both)]
            cells += [_ratio(deviation.linearized, False), _ratio(deviation.certified, True)]
            cells.append(_certain(row) if distance == "euclidean" else Cell(""))
            made.append((f"{spaced(row.name)}, {'Euclidean' if distance == 'euclidean' else distance}", cells))
        return made

    top = f"{found.pixels['top']:,}"
    caption = html(
        "How far the signed maps move: medians over the samples, with 95 % intervals by order statistics. Euclidean "
        "distances are in lengths of the clean map; cosine is 1 − cos, at most 2. <em>Attack:</em> reached. "
        "<em>Linearized:</em> an upper bound to first order, which points may exceed. <em>Certified:</em> holds for "
        "every point of the ball, which none may exceed. Under each ratio: where the middle 90 % of the samples lie, "
        "the largest, and how many of the points that attacks, random noise and the searches of the bounds left lie "
        "above the bound. Certain: pixels of the top {} that no change within the threat can drive out, mean and the "
        "share of samples with any.",
        top,
    )
    head = ["Explanation", "Attack", "Linearized", "Certified", "Attack / linearized", "Attack / certified"]
    return _by_map(found, caption, [*head, f"Certain of {top}"], rows, style="stacked")


def _bound(bound: Bound | None, samples: int) -> Cell:
    if bound is None:
        return Cell(missing("none"))
    note = "" if bound.count == samples else f"first {bound.count:,}"
    return Cell(missing("not finite"), note=note) if bound.bound.value is None else ranged(bound.bound, note=note)


def _ratio(bound: Bound | None, never: bool) -> Cell:
    """Attack over bound; points above a bound that must `never` be exceeded are marked."""
    if bound is None:
        return DASH
    above = f"{bound.over:,} of {bound.points:,} above"
    note = html('<span class="{}">{}</span>', "bad" if bound.over else "good", f"{'✗' if bound.over else '✓'} {above}")
    if bound.ratio is None:
        return Cell("", note=note if never else above)
    low, high = (number(level.value, 2) for level in (bound.ratio["0.05"], bound.ratio["0.95"]))
    range_ = f"{low}–{high}, max. {number(bound.largest, 2)}"
    return ranged(bound.ratio["0.5"], note=html("{}<br>{}", range_, note if never else above))


def _certain(row: AttackedMap) -> Cell:
    if row.certain is None:
        return DASH
    return ranged(row.certain.mean, ".1f", note=f"any: {percent(row.certain.any.value)}")


def _no_bounds(found: Explained) -> list[Block]:
    return [
        Text(f"{name}, {spaced(row.name)}, no {kind} bound: {why}", "note")
        for name, row in _measured(found)
        for kind, why in row.why.items()
        if why is not None
    ]


def _figures(found: Explained) -> list[Block]:
    decades = limits(row.deviation.euclidean.values for _, row in _measured(found))
    if decades is None:
        return []
    panels: dict[str, list[tuple[Markup | None, Inline]]] = {}
    for name, row in _measured(found):
        drawn = inline(scatter(row.deviation.euclidean.values, decades, _in_words(name, row)))
        panels.setdefault(name, []).append((drawn, spaced(row.name)))
    words = Markup(
        "<b>Each point is a sample:</b> its bound to the right, the attack upwards, both Euclidean. On the line the "
        "attack reaches the bound, above it exceeds the bound."
    )
    marks = html("{} &nbsp; {}", legend("dot", "linearized"), legend("dot hollow", "certified"))
    return [page.Items([words, marks], "keys"), page.Panels(list(panels.items()))]


def _in_words(name: str, row: AttackedMap) -> str:
    parts = []
    for kind in ("linearized", "certified"):
        bound: Bound | None = getattr(row.deviation.euclidean, kind)
        if bound is not None and bound.ratio is not None:
            median = number(bound.ratio["0.5"].value)
            parts.append(f"attack / {kind} bound: median {median}, largest {number(bound.largest)}")
    return f"{name}, {row.name}: Euclidean deviation, attack against bound. {'; '.join(parts) or 'No bound'}."


def _faithful(found: Explained) -> list[Block]:
    if not any(row.faithful for _, row in _measured(found)):
        return []
    caption = (
        "Maps of the models themselves, of clean samples: means with their 95 % intervals; below each what a map of "
        "random numbers scores. Energy inside: share of the map’s energy in the fifth of the pixels whose blurring "
        "matters most. Agreement: rank correlation with that blurring. Deletion and insertion: mean probability of the "
        "class while pixels are set to the lowest value, or unblurred, the most important ones first. Gain of "
        "deletion: the same with the least important ones first, less deletion; 0 by chance. Sparsity: 0 for an even "
        "map, towards 1 for a single pixel. None of these knows the truth, and an uncertain model has a small "
        "deletion with any map."
    )
    head = ["Explanation", *(html("{}<br>{}", title, small(better)) for title, better in FAITHFUL.values())]

    def rows(row: AttackedMap) -> list[Row]:
        if not row.faithful:
            return [_whole_row(row.name, head)]
        scores = [row.faithful[measure] for measure in FAITHFUL]
        return [(spaced(row.name), [ranged(s["map"], ".2f", note=f"chance {s['chance'].value:.2f}") for s in scores])]

    return [page.Heading("Does the map point at what the model uses?"), _by_map(found, caption, head, rows)]


def _pictures(run: Run, found: Explained) -> list[Block]:
    folded: list[Block] = []
    for index, (name, model) in enumerate(found.models.items()):
        for place, row in enumerate(model.attributions):
            if samples := attacked_maps(run.summary, run.arrays, index, place, row.samples):
                lost = sum(sample.changed for sample in samples)
                note = small(f"{lost} of {len(samples)} shown lost pixels of their top 10 %")
                title = f"{name}: {spaced(row.name)}"
                folded.append(page.Folded(title, [page.Samples(samples)], note, open=not folded, inner=True))
    if not folded:
        return []
    maps = (
        "Map before, map after and their difference, all on one scale: white nothing, red more, blue less; its ends "
        "stand below. Model blurred: how much the logits of the model itself change when a place is blurred."
    )
    marks = Markup("").join(html("{} &nbsp; ", legend("swatch", meaning, color)) for color, meaning in MARKS)
    words = "For each, the point with the fewest of the largest pixels in common. "
    return [
        page.Heading("The first samples, not chosen"),
        Text(f"{words}The prediction is the same before and after; its confidence stands below."),
        page.Items([legend("ramp change", maps), html("{}(pixels of the top 10 %)", marks)], "keys"),
        *folded,
    ]


def terminal(run: Run) -> RichTable | None:
    """What attacks left of the top pixels, and how near they came to the certified bound."""
    if run.summary.explained is None:
        return None
    rows: list[list[Inline | Cell]] = []
    for name, model in run.summary.explained.models.items():
        for row in model.attributions:
            if row.refused is not None:
                rows.append([name, row.name, NOT_MEASURED, ""])
                continue
            certified = row.deviation.euclidean.certified
            ratio = number(certified.ratio["0.5"].value) if certified is not None and certified.ratio else "no bound"
            rows.append([name, row.name, ranged(row.similarity["top_k_intersection"]["attack"], ".2f"), ratio])
    title = "Explanations moved by attacks, also as a share of the certified bound"
    return listed(["model", "explanation", "top 10 % kept", "of the bound"], rows, title)


SECTION = ReportSection(
    100, "explained", "Explanations", "How far explanations can be moved", "explained", blocks, terminal
)
