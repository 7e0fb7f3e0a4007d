"""The page that compares attacks has a row for each, and its figures are those of the result file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steadygrad.attacks import ATTACKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "attacks.md").read_text("utf-8")
FIRST = {
    cells[0].strip("`"): cells
    for cells in ([c.strip() for c in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:3] == "| `")
    if len(cells) == 9
}
RESULTS: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "passes.json").read_text("utf-8"))


def passes(row: dict[str, Any]) -> str:
    return f"{row['forwards']:.1f} + {row['backwards']:.1f}"


def test_every_attack_has_its_row():
    assert set(FIRST) == {row.name for row in ATTACKS}


@pytest.mark.parametrize("row", list(ATTACKS), ids=lambda row: row.name)
def test_the_row_is_that_of_the_registry(row):
    _, norms, order, _, _, gradients, smallest, _, _ = FIRST[row.name]
    assert norms == ", ".join(row.norms)
    assert int(order) == row.order
    assert (gradients == "no") == (row.order == 0)
    assert (smallest == "yes") == row.method.minimum_norm


@pytest.mark.parametrize("found", RESULTS["rows"], ids=lambda r: f"{r['attack']}-{r['eps']}")
def test_the_figures_are_those_of_the_command(found):
    if found["eps"] is not None:
        assert FIRST[found["attack"]][4] == passes(found)
    else:
        start = f"| `{found['attack']}` | {found['norm']} | smallest | "
        (line,) = (line for line in PAGE.splitlines() if line.startswith(start))
        assert passes(found) in line
        assert f"{found['median_distance']:.3g}" in line
