"""What people said of adversarial images and maps, as parts of a page: a study's own, or a section of an audit's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from steadygrad.report.blocks import Block, Cell, Folded, Group, Inline, Row, Section, Table, Text, html, missing
from steadygrad.report.cells import SCALE, ranged, share, whisker
from steadygrad.report.wording import estimate, number

if TYPE_CHECKING:
    from steadygrad.audit.schema_people import AnswerShare, Contrast, Judged, People, Preference

_SCORES = {"fooled": "Fooled", "reasonable": "Reasonable"}
_ABOUT = {**_SCORES, "best": "Most plausible label"}
_FEW = 6  # pairs of models that are not folded
_READ = (
    "Fooled: the model's label was named as the most plausible one. Reasonable: it was among the plausible "
    "labels, or the image could not be recognized. A larger share is no fault: it says that the model errs where "
    "people might. In brackets the 95 % interval for other people and other images: answers of one person hang "
    "together, and so do those about one image, so that it is wider than one that counts each answer as a sample "
    "of its own."
)
_PAPER = (
    "The protocol is that of Ross and Doshi-Velez (2018, arXiv 1711.09404): images that fool a model, of "
    "originals that it had right; people name every plausible label, or none, and the most plausible one. They "
    "showed MNIST changed by JSMA and SVHN changed by iterated TGSM, of plain, distilled and gradient-regularized"
    " models, about 30 images to each of about 11 people (as others tell it). The shares that they found are not "
    "among the reference figures of this package, so none stand beside these."
)


def sentence(people: People) -> str:
    """The result in one sentence."""
    found = [(row, row.fooled) for row in people.models if row.attack is None and row.fooled is not None]
    if not people.answers:
        out = sum(people.excluded.persons.values())
        return f"No answers are left: the rules leave out all {_many(out, 'person')} who answered."
    if not found:
        few = f"{_many(people.answers, 'answer')} of {_many(people.persons, 'person')}"
        return f"{few}: too few to say how often people are fooled by adversarial images."
    ordered = sorted(found, key=lambda pair: -pair[1].value)
    (first, most), (last, least) = ordered[0], ordered[-1]
    lead = f"The adversarial images of {first.model} fooled people in {estimate(most)} of {most.count:,} judgements"
    if len(found) == 1:
        return f"{lead}."
    return f"{lead}, the most of {len(found)} models; those of {last.model} in {estimate(least)}, the least."


def parts(people: People, inner: bool = False) -> list[Section]:
    """All that there is to show, each part with its heading; `inner` where these stand within a section."""
    found = [
        Section("Fooled and reasonable", _shares(people, inner), "judged", "Judgements"),
        Section("Models compared", _compared(people, inner), "compared", "Compared"),
        Section("Which map explains better", _maps(people), "preferred", "Maps"),
        Section("Agreement and controls", _agreement(people), "agreement", "Agreement"),
        Section("Left out", _left_out(people), "left-out", "Left out"),
    ]
    return [section for section in found if section.blocks]


def _many(count: int, name: str) -> str:
    return f"{count:,} {name if count == 1 else f'{name}s'}"


def _shares(people: People, inner: bool) -> list[Block]:
    if not people.models:
        return []
    rows = [(_named(row), _cells(row)) for row in people.models]
    table = Table(
        "Judgements of adversarial images, by the model that they fool.",
        ["Model", "Fooled", "Reasonable", SCALE, "Judgements"],
        rows, words=(2,), style="headline",
    )  # fmt: skip
    key = "Dot and bar: fooled with its interval; upright mark: reasonable."
    return [table, Text(f"{key} {_READ}", "note"), *_intervals(people, inner), Text(_PAPER, "note")]


def _named(row: Judged) -> Inline:
    return row.model if row.attack is None else html('<span class="of">{}, {}</span>', row.model, row.attack)


def _cells(row: Judged) -> list[Cell]:
    behind = f"{_many(row.persons, 'person')}, {_many(row.images, 'image')}"
    return [
        _share(row.fooled, row.hits["fooled"], row.answers, kind="num main"),
        _share(row.reasonable, row.hits["reasonable"], row.answers),
        _whisker(row),
        Cell(f"{row.answers:,}", note=behind if row.answers else ""),
    ]


def _share(value: AnswerShare | None, hits: int, answers: int, **more: Any) -> Cell:
    if value is not None:
        return share(value, **more)
    return Cell(missing(f"too few: {hits} of {answers}" if answers else "no answers"), **more)


def _whisker(row: Judged) -> Cell:
    if row.fooled is None or row.reasonable is None:
        return Cell("", kind="plot")
    return whisker(row.fooled, row.reasonable.value)


def _intervals(people: People, inner: bool) -> list[Block]:
    """The interval that counts beside the two that leave something out."""
    groups = []
    for score, title in _SCORES.items():
        rows = []
        for row in people.models:
            value: AnswerShare | None = getattr(row, score)
            if value is not None:
                ends = [(value.low, value.high), value.wilson, value.by_persons]
                shown = [Cell(f"[{100 * low:.1f}, {100 * high:.1f}]") for low, high in ends]
                rows.append((_named(row), [*shown, Cell(f"{value.independent:.0f} of {value.count:,}")]))
        if rows:
            groups.append(Group(title, rows))
    if not groups:
        return []
    caption = (
        "95 % intervals in percent. Wilson's takes each answer as independent; the bootstrap draws people and"
        " keeps the images. Worth: as many independent answers would tell as much."
    )
    table = Table(caption, ["Model", "People and images", "Wilson", "People alone", "Worth"], groups=groups)
    return [Folded("Other intervals", [table], note="what they leave out", inner=inner)]


def _compared(people: People, inner: bool) -> list[Block]:
    groups = []
    for score, title in _SCORES.items():
        rows = [_contrast(found) for found in people.contrasts if found.score == score]
        if rows:
            groups.append(Group(title, rows))
    if not groups:
        return []
    caption = (
        "The share of the first model minus that of the second, in points, and the ratio of their odds for "
        "the same person and alike images, by a mixed logit. In brackets 95 % intervals, each for itself: of "
        "many comparisons some miss."
    )
    table = Table(caption, ["Models", "Difference", "Ratio of odds"], groups=groups, style="stacked")
    spreads = [
        f"{found.score}: {number(found.persons, 2)} between people, {number(found.images, 2)} between images"
        for found in people.spreads
    ]
    told = f"Standard deviations of the mixed logit, in logarithms of odds: {'; '.join(spreads)}."
    pairs = len(people.contrasts) // len(_SCORES)
    shown = [table] if pairs <= _FEW else [Folded(f"All {pairs} pairs of models", [table], inner=inner)]
    return [*shown, *([Text(told, "note")] if spreads else [])]


def _contrast(found: Contrast) -> Row:
    gap = Cell(missing("too few")) if found.difference is None else ranged(found.difference, "+.1f", 100)
    odds = Cell(missing(found.note or "too few"), kind="words") if found.odds is None else ranged(found.odds)
    return f"{found.first} − {found.second}", [gap, odds]


def _maps(people: People) -> list[Block]:
    if not people.preferences:
        return []
    rows = [(f"{found.first} or {found.second}", _preference(found)) for found in people.preferences]
    caption = (
        "Two maps beside each other, not named: the share for the first among the answers that prefer one. "
        "People: how many preferred the first, and the second, more often; p: how likely so uneven a split "
        "is, were both as good."
    )
    table = Table(caption, ["Maps", "For the first", "No difference", "People", "p"], rows, style="stacked")
    found: list[Block] = [table]
    for scale in sorted({rank.scale for rank in people.ranks}):
        ranked: list[Row] = [(r.name, [ranged(r, ".0f", 100, " %")]) for r in people.ranks if r.scale == scale]
        told = "On one scale (Bradley and Terry 1952): the chance to be preferred to the middle one, over people."
        found.append(Table(told, ["Map", "Chance"], ranked))
    if people.left is not None:
        found.append(Text(f"The map on the left was preferred in {estimate(people.left)}: by chance 50 %.", "note"))
    return found


def _preference(found: Preference) -> list[Cell]:
    return [
        _share(found.share, found.preferred, found.answers - found.undecided),
        Cell(f"{found.undecided:,} of {found.answers:,}"),
        Cell(f"{found.persons_for_first:,} : {found.persons_for_second:,}"),
        Cell(number(found.p, 2)),
    ]


def _agreement(people: People) -> list[Block]:
    found: list[Block] = []
    rows = [(_ABOUT[row.about], row) for row in people.agreement if row.stimuli]
    if rows:
        caption = (
            "Krippendorff's alpha, nominal: 1 where all say the same of an image, 0 where they agree as by "
            "chance. Interval by bootstrap over the images that two people or more judged."
        )
        cells: list[Row] = [
            (name, [ranged(row.alpha, ".2f") if row.alpha else Cell(missing("too few, or all alike")),
                    Cell(f"{row.stimuli:,}"), Cell(f"{row.answers:,}")])
            for name, row in rows
        ]  # fmt: skip
        found.append(Table(caption, ["About", "Alpha", "Images", "Judgements"], cells, style="stacked"))
    if people.clean is not None:
        right = _share(people.clean.correct, people.clean.right, people.clean.answers)
        told = Cell(f"{people.clean.right:,} of {people.clean.answers:,}")
        found.append(
            Table(
                "Controls, whose answer is known.", ["Trial", "Right", "Answers"], [("unchanged images", [right, told])]
            )
        )
    return found


def _left_out(people: People) -> list[Block]:
    out, rules = people.excluded, people.excluded.rules
    words = [
        *(["whoever did not finish"] if rules.get("finished") else []),
        f"whoever got {_wrong(rules.get('attention', 0))} wrong",
        f"answers quicker than {rules.get('fastest')} s",
        f"whoever has more than {100 * float(rules.get('quick', 0)):.0f} % of these",
    ]
    when = (
        "Fixed when the study was first served: left out are"
        if out.fixed
        else "The usual rules, or rules that nobody is known to have fixed before the first answer: left out are"
    )
    rows = [(reason, [Cell(f"{count:,}")]) for reason, count in out.persons.items()]
    rows += [("single answers, too quick", [Cell(f"{out.answers:,}")])]
    total: Row = ("stay", [Cell(f"{_many(people.persons, 'person')}, {_many(people.answers, 'answer')}")])
    table = Table(
        "People by the first rule that holds for them, and answers.",
        ["Left out", "Count"],
        groups=[Group("", rows, total)],
    )
    return [Text(f"{when} {', '.join(words)}."), table]


def _wrong(allowed: int) -> str:
    return f"more than {_many(allowed, 'attention check')}" if allowed else "an attention check"


def facts(people: People) -> Sequence[tuple[str, Inline]]:
    """Short facts for the head of a page."""
    found = [("People", f"{people.persons:,}"), ("Answers", f"{people.answers:,}")]
    if people.seconds is not None:
        found.append(("Time of an answer", f"{number(people.seconds, 2)} s at the median"))
    return [*found, ("Languages", ", ".join(people.languages) or "–")]
