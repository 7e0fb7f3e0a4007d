"""The headline in the terminal and the words around the numbers."""

from __future__ import annotations

import doctest
import io
from typing import Any

import pytest
from rich.console import Console

from report.fake_summary import full
from report.test_explained import attacked
from report.test_neurons import looked_at
from steadygrad import report
from steadygrad.audit.schema import Summary
from steadygrad.report import wording
from steadygrad.report.sections import curves_section, headline_section


def read(summary: dict[str, Any]) -> Summary:
    return Summary.model_validate(summary)


def test_the_headline_is_aligned_and_complete() -> None:
    summary = read(full()[0])
    console = Console(file=io.StringIO(), width=220, color_system=None)
    console.print(report.tables(summary)[0])
    lines = [line.rstrip() for line in console.file.getvalue().splitlines() if "%" in line]  # type: ignore[attr-defined]
    assert len(lines) == 6
    assert len({line.index("%") for line in lines}) == 1
    for model, line in zip(summary.models, lines, strict=True):
        assert line.strip().startswith(model.name)
        assert wording.estimate(model.clean) in line
        assert wording.estimate(model.robust) in line
        assert line.endswith(("✓ " if model.verdict.state == "holds" else "✗ ") + model.verdict.text)


def test_table_prints_the_numbers_of_the_page_and_no_markup() -> None:
    summary, _ = full(["[red]x[/red]", *(m["name"] for m in full()[0]["models"][1:])])
    console = Console(file=io.StringIO(), width=220, color_system=None)
    console.print(report.tables(read(summary))[0])
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]x[/red]" in printed
    for model in read(summary).models:
        assert wording.estimate(model.robust) in printed
        assert model.verdict.text in printed


def test_a_refused_number_is_struck_in_the_table() -> None:
    console = Console(file=io.StringIO(), width=220, force_terminal=True, color_system="standard")
    console.print(report.tables(read(full()[0]))[0])
    row = next(line for line in console.file.getvalue().splitlines() if "62.0 %" in line)  # type: ignore[attr-defined]
    assert "\x1b[2;9m" in row


def _refused(summary: dict[str, Any], *places: int) -> Summary:
    for place in places:
        verdict = summary["models"][place]["verdict"]
        verdict["state"], verdict["checks"][0]["passed"] = "refuted", False
    return read(summary)


def test_sentence_names_the_best_number_that_stands() -> None:
    summary, _ = full()
    sentence = headline_section.sentence(read(summary))
    assert sentence.startswith("PGD + gradient penalty withstands every attack tried within ℓ∞ ≤ 0.1 on 86.0 %")
    assert "the number of one other model is refuted" in sentence
    sentence = headline_section.sentence(_refused(summary, 5))
    assert sentence.startswith("PGD-trained withstands")
    assert "the numbers of 2 other models are refuted" in sentence


def test_sentence_claims_nothing_when_no_number_stands() -> None:
    sentence = headline_section.sentence(_refused(full()[0], *range(6)))
    assert "do not let any robust accuracy in this report stand" in sentence
    assert "%" not in sentence


@pytest.mark.parametrize("module", [wording, curves_section])
def test_examples_in_the_documentation_run(module: object) -> None:
    outcome = doctest.testmod(module)  # type: ignore[arg-type]
    assert outcome.attempted
    assert not outcome.failed


def test_explanations_and_neurons_are_printed_where_they_were_looked_at() -> None:
    summary, _ = attacked()
    summary["neurons"] = looked_at()[0]["neurons"]
    console = Console(file=io.StringIO(), width=160, color_system=None)
    found = report.tables(read(summary))
    console.print(*found, sep="\n")
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert len(found) == 4
    assert len(report.tables(read(full()[0]))) == 4  # with what is certified, also of a smoothed classifier
    names = [model["name"] for model in summary["models"]]
    row = summary["explained"]["models"][names[0]]["attributions"][0]
    ratio = row["deviation"]["euclidean"]["certified"]["ratio"]["0.5"]["value"]
    moved_part, neurons = printed[printed.index("Explanations moved") :].split("Neurons under attack")
    lines = {line.strip().split("  ")[0]: line for line in moved_part.splitlines()}
    assert f"{row['similarity']['top_k_intersection']['attack']['value']:.2f} [" in lines[names[0]]
    assert wording.number(ratio) in lines[names[0]]
    # The second explanation of a model does not say its name again; what could not be measured is said.
    assert "IntegratedGradients" in lines
    assert printed.count("no bound") == 1
    assert moved_part.count("not measured") == 1
    assert neurons.count("not measured") == 1 + 2 * 2
    assert "60.0 %" in neurons
    assert "silent" in neurons
