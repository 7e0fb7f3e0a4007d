"""What several trainings say together that differ in their seed only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from steadygrad.errors import UsageError
from steadygrad.measuring import statistics
from steadygrad.measuring.statistics import Estimate
from steadygrad.papers.claims import Claim
from steadygrad.report.blocks import Cell, Section, Table
from steadygrad.report.wording import number


def seeds_of(text: str) -> tuple[int, ...]:
    """Seeds as they are written in a command.

    >>> seeds_of("0-2,7")
    (0, 1, 2, 7)
    """
    try:
        parts = [part.split("-") for part in text.split(",")]
        return tuple(s for first, *last in parts for s in range(int(first), int((last or [first])[-1]) + 1))
    except ValueError:
        raise UsageError(f"seeds are whole numbers such as 0-4 or 0,3,7, got {text!r}") from None


def over_seeds(
    seeds: Sequence[int], claims: Sequence[Sequence[Claim]], headlines: Sequence[Mapping[str, tuple[Estimate, str]]]
) -> tuple[list[Claim], Section, list[dict[str, Any]]]:
    """The claims judged by the means over seeds, the section with all means, and these as plain data.

    Args:
        seeds: of the runs.
        claims, headlines: of each run. A claim counts where it was measured at every seed.
    """
    rows = [
        (name, unit, [headline[name][0] for headline in headlines])
        for name, (_, unit) in headlines[0].items()
        if all(name in headline for headline in headlines)
    ]
    joined = [_joined(same) for same in zip(*claims, strict=True)]
    rows += [
        (same[0].text, same[0].unit, [claim.found for claim in same if claim.found is not None])
        for same, claim in zip(zip(*claims, strict=True), joined)
        if claim.found is not None
    ]
    plain = [
        {
            "text": text,
            "unit": unit,
            "mean": _mean(values, unit).plain(),
            "by_seed": {str(seed): value.plain() for seed, value in zip(seeds, values)},
        }
        for text, unit, values in rows
    ]
    table = Table(
        f"Means over {len(seeds)} trainings that differ in their seed, with Student's t intervals, which are about "
        "another training; beside them the single trainings, with intervals over the test samples.",
        ["Figure", "Mean", *(f"Seed {seed}" for seed in seeds)],
        [(text, [_cell(v, unit) for v in (_mean(values, unit), *values)]) for text, unit, values in rows],
    )
    return joined, Section("Over seeds", [table]), plain


def _mean(values: Sequence[Estimate], unit: str) -> Estimate:
    """The mean over seeds; the interval of a share ends where a share can."""
    found = statistics.over_seeds(values)
    return found.within(0.0, 1.0) if unit == "%" else found


def _joined(claims: Sequence[Claim]) -> Claim:
    found = [claim.found for claim in claims if claim.found is not None]
    held = sum(claim.held for claim in claims)
    return dataclasses.replace(
        claims[0],
        found=_mean(found, claims[0].unit) if len(found) == len(claims) else None,
        detail=f"mean over seeds; held at {held} of {len(claims)}",
    )


def _cell(value: Estimate, unit: str) -> Cell:
    if unit in ("%", "points"):
        texts = [f"{100 * v:.2f}" for v in (value.value, value.low, value.high)]
    else:
        texts = [number(v) for v in (value.value, value.low, value.high)]
    return Cell(f"{texts[0]} {unit}".strip(), f"[{texts[1]}, {texts[2]}]")
