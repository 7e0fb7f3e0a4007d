"""Claims, tables and the picture follow from the rows."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from benchmarks.attacks import picture, table
from benchmarks.attacks.claims import claims


def row(task, library, *, success=1.0, median=1.0, forwards=10.0, backwards=20.0, ratio=30.0, variant="", error=None):
    made = {"task": task, "library": library, "variant": variant, "attack": "A(steps=1)", "error": error}
    made |= {"norm": "l2", "eps": None, "smallest": task != "PGD"}
    if error is not None:
        return made
    return {
        **made,
        "success": {"value": success, "low": 0.9, "high": 1.0, "count": 2},
        "median": {"value": median, "low": 0.5, "high": None},
        "forwards": forwards,
        "backwards": backwards,
        "seconds": 1.0,
        "bare_seconds": 0.1,
        "ratio": {"value": ratio, "low": ratio, "high": ratio},
        "cpu_ratio": ratio,
        "laps": 1,
        "distances": [1.0, None],
    }


OURS = [
    row("DeepFool l2", "steadygrad", median=1.005),
    row("DeepFool l2", "steadygrad", variant="all classes", backwards=70.0),
    row("JSMA", "steadygrad", success=0.9, median=40.0),
    row("C&W l2", "steadygrad", median=0.99, forwards=250.0, backwards=250.0),
    row("DDN", "steadygrad", median=0.995, backwards=100.0),
]
OTHERS = [
    row("DeepFool l2", "foolbox", ratio=60.0),
    row("DeepFool l2", "art", ratio=90.0),
    row("JSMA", "art", success=0.8, ratio=400.0),
    row("C&W l2", "foolbox", median=1.0, forwards=500.0, backwards=500.0),
    row("C&W l2", "art", error="ValueError: no"),
]


def _holds(rows):
    return {claim.text: claim.holds for claim in claims(rows)}


def test_claims_hold_where_they_do():
    found = claims([*OURS, *OTHERS])
    assert len(found) == 12
    assert all(claim.holds for claim in found), [c for c in found if not c.holds]
    values = {claim.text: claim.value for claim in found}
    assert values["DeepFool l2: times faster than the fastest other, at least"] == 2.0
    assert values["C&W l2: passes beside that one, at most"] == 0.5


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (row("DeepFool l2", "steadygrad", forwards=11.5), "DeepFool l2: forwards"),
        (row("DeepFool l2", "steadygrad", backwards=26.0), "DeepFool l2: backwards"),
        (row("DeepFool l2", "steadygrad", success=0.99), "DeepFool l2: success"),
        (row("DeepFool l2", "steadygrad", median=1.02), "DeepFool l2: median"),
        (row("DeepFool l2", "art", median=0.9, ratio=90.0), "DeepFool l2: median beside the best"),
        (row("DeepFool l2", "foolbox", ratio=50.0), "DeepFool l2: times faster"),
        (row("JSMA", "art", success=0.95, ratio=400.0), "JSMA: success"),
        (row("JSMA", "art", success=0.8, ratio=200.0), "JSMA: times faster"),
        (row("C&W l2", "foolbox", median=0.9, forwards=500.0, backwards=500.0), "C&W l2: median"),
        (row("C&W l2", "foolbox", forwards=300.0, backwards=300.0), "C&W l2: passes"),
        (row("DDN", "steadygrad", median=1.01, backwards=100.0), "DDN: median"),
        (row("DDN", "steadygrad", median=0.99, backwards=200.0), "DDN: gradient steps"),
    ],
)
def test_a_claim_fails_alone(changed, words):
    def same(other):
        return all(other[k] == changed[k] for k in ("task", "library", "variant"))

    rows = [changed if same(other) else other for other in (*OURS, *OTHERS)]
    assert [text for text, holds in _holds(rows).items() if not holds] == [
        text for text in _holds(rows) if text.startswith(words)
    ]


def test_without_others_there_is_nothing_to_compare():
    found = _holds(OURS)
    assert found["DeepFool l2: times faster than the fastest other, at least"] is None
    assert found["DeepFool l2: forwards per input, at most"] is True
    assert claims([]) == []


def test_the_table_names_failures():
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(table.view(sorted([*OURS, *OTHERS], key=lambda row: row["task"])))
    text = console.export_text()
    assert text.count("JSMA") == 1  # in the first row of its block alone
    assert "failed" in text
    assert "steadygrad all classes" in text
    console.print(table.verdicts([vars(claim) for claim in claims([*OURS, *OTHERS])]))
    assert "✓" in console.export_text()


def test_the_page_says_what_does_not_hold():
    found = {
        "samples": 2, "data": "digits", "seed": 0, "note": "busy", "accuracy": {"value": 0.98},
        "machine": {"device": "cpu", "threads": 1, "cores": 2, "load_before": 3.0}, "versions": {"steadygrad": "1"},
        "absent": {"foolbox": "not installed"}, "rows": [*OURS[1:], *OTHERS],
        "claims": [vars(claim) for claim in claims([*OURS[1:], *OTHERS])],
    }  # fmt: skip
    page = table.markdown(found)
    assert "load before 3.0" in page
    assert "Note: busy." in page
    assert "Not compared: foolbox (not installed)." in page
    assert "| DeepFool l2: backwards per input, at most | 25 | 70 | **no** |" in page
    assert "| C&W l2 | art | A(steps=1): ValueError: no | failed |" in page
    assert {line.count("|") for line in page.splitlines() if line.startswith("| C&W")} >= {9}


def test_csv_holds_every_row():
    rows = [*OURS, *OTHERS]
    read = list(csv.DictReader(io.StringIO(table.rows_csv(rows))))
    assert len(read) == len(rows)
    assert (read[0]["median"], read[0]["median_low"], read[0]["median_high"]) == ("1.005", "0.5", "")
    assert read[-1]["error"] == "ValueError: no"
    assert read[-1]["forwards"] == ""
    read = list(csv.DictReader(io.StringIO(table.distances_csv(rows, ["a", "b"]))))
    assert len(read) == 2 * (len(rows) - 1)
    assert [line["distance"] for line in read[:2]] == ["1", ""]


def test_the_picture_shows_the_best_settings_of_each(tmp_path):
    rows = [*OURS, *OTHERS, row("C&W l2", "foolbox", median=0.995, variant="tuned"), row("PGD", "steadygrad")]
    picture.draw(rows, tmp_path / "race.png", "title")
    assert (tmp_path / "race.png").read_bytes().startswith(b"\x89PNG")
    kept = {(r["task"], r["library"]): r["variant"] for r in picture._best([r for r in rows if not r["error"]])}
    assert kept["C&W l2", "foolbox"] == "tuned"
    assert kept["DeepFool l2", "steadygrad"] == ""
