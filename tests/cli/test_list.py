"""`steadygrad list`: all rows, readable at 80 columns, and the same as JSON."""

from __future__ import annotations

import json

import pytest

from cli.commands import done
from steadygrad import attacks, attributions, bounds, data, defenses, models, papers, recipes
from steadygrad.measuring.measures import MEASURES

KINDS = {
    "attacks": attacks.ATTACKS,
    "attribution-attacks": attacks.ATTRIBUTION_ATTACKS,
    "attributions": attributions.ATTRIBUTIONS,
    "bounds": bounds.BOUNDS,
    "defenses": defenses.DEFENSES,
    "measures": MEASURES,
    "models": models.ARCHITECTURES.values(),
    "data": data.DATASETS,
    "recipes": recipes.RECIPES,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_listed_within_80_columns(kind: str) -> None:
    lines = done("list", kind).out.splitlines()
    assert max(map(len, lines)) <= 80
    # Names stand at the margin, all else is indented.
    assert [line for line in lines if not line.startswith(" ")] == [row.name for row in KINDS[kind]]
    text = " ".join(" ".join(lines).split())
    for row in KINDS[kind]:
        assert " ".join(row.summary.split()) in text


@pytest.mark.parametrize("kind", KINDS)
def test_json_is_one_object_with_every_row(kind: str) -> None:
    result = done("list", kind, "--json")
    assert result.out.count("\n") == 1
    found = json.loads(result.out)
    assert found["kind"] == kind
    assert [row["name"] for row in found["rows"]] == [row.name for row in KINDS[kind]]
    assert all(row["summary"] for row in found["rows"])


def test_papers_are_listed_with_their_data_and_networks() -> None:
    found = {row["name"]: row for row in json.loads(done("list", "papers", "--json").out)["rows"]}
    assert list(found) == list(papers.PAPERS)
    assert {name: row["models"] for name, row in found.items()} == {n: list(p.models) for n, p in papers.PAPERS.items()}
    assert max(map(len, done("list", "papers").out.splitlines())) <= 80


def test_the_settings_of_a_method_are_those_that_a_flag_takes() -> None:
    rows = {row["name"]: row for row in json.loads(done("list", "attacks", "--json").out)["rows"]}
    assert rows["pgd"]["settings"]["steps"] == attacks.PGD().steps
    assert rows["pgd"]["norms"] == list(attacks.ATTACKS["pgd"].norms)
    assert "settings: steps=40" in done("list", "attacks").out
    assert json.loads(done("list", "defenses", "--json").out)["rows"][2]["settings"]["eps"] == "required"
