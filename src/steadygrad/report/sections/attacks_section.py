"""Attack by attack: what each one left of the accuracy, what it cost, and what only it broke."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadygrad.report.blocks import Block, Cell, Group, Inline, Row, Table, html, mark, small, titled
from steadygrad.report.cells import DASH, judged, share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import number, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steadygrad.audit.schema import AttackRow, Model


def blocks(run: Run) -> list[Block]:
    """Every attack by model, and who broke what."""
    models = run.summary.models
    far = any(attack.median_distance is not None for model in models for attack in model.attacks)
    head = ["Attack", "Accuracy", "Success rate", "Accuracy after 8-bit rounding", "Zero gradient"]
    head += ["Passes forward, backward", *(["Median distance"] if far else []), "Verdict"]
    caption = "Every attack of the suite. Success is counted among the samples that were right before the attack. "
    groups = [_group(model, far) for model in models]
    every = Table(f"{caption}Passes are means per sample.", head, words=(len(head) - 2,), groups=groups)
    return [every, *titled("Who broke what", _broken(models))]


def _group(model: Model, far: bool) -> Group:
    counts = list(dict.fromkeys(a.success_rate.count for a in model.attacks if a.success_rate is not None))
    title: Inline = model.name
    if len(counts) == 1:
        title = html("{} {}", title, small(f"success among the {counts[0]:,} samples that were right before"))
    good = {"holds": True, "refuted": False}.get(model.verdict.state)
    reason = html('<div class="fit">{}</div>', mark(good, model.verdict.text))
    total = [share(model.robust, good is not False), Cell(reason, span=6 if far else 5, kind="words reason")]
    rows = [(attack.label, _cells(model, attack, far, len(counts) > 1)) for attack in model.attacks]
    return Group(title, rows, ("worst case per sample", total))


def _cells(model: Model, attack: AttackRow, far: bool, counted: bool) -> list[Cell]:
    stands, rate = attack.verdict.state == "holds", attack.success_rate
    same = not stands and attack.verdict.text == model.verdict.text
    below = Cell(html("{} for the reason below", mark(False, "number refuted,")), kind="words")
    return [
        share(attack.accuracy, stands),
        share(rate, stands, note=f"of {rate.count:,} right before" if rate is not None and counted else ""),
        share(attack.after_rounding, stands),
        Cell(percent(attack.zero_gradient)),
        Cell(f"{attack.forwards:.1f}, {attack.backwards:.1f}"),
        *([Cell(number(attack.median_distance))] if far else []),
        below if same else judged(attack.verdict),
    ]


def _broken(models: Sequence[Model]) -> Table:
    """What each attack, or member of a suite, broke in each model, in the order in which attacks first come."""
    found = [{(row.attack, row.member): row for row in model.broken_by} for model in models]
    rows: list[Row] = []
    for place in dict.fromkeys(place for each in found for place in each):
        broken = [each.get(place) for each in found]
        counts = '{} <span class="ci">({})</span>'
        cells = [DASH if b is None else Cell(html(counts, f"{b.samples:,}", f"{b.alone:,}")) for b in broken]
        rows.append((": ".join(filter(None, place)), cells))
    return Table(
        "Samples that each attack broke of those that were right before; in brackets those that nothing else in the "
        "suite broke. The members of a standard suite run one after the other, each on what still stands.",
        ["Attack", *(model.name for model in models)],
        rows,
    )


SECTION = ReportSection(20, "attacks", "Attacks", "Attack by attack", "models.attacks models.broken_by", blocks)
