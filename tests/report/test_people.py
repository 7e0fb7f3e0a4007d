from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.judgements import DESIGNS, Design, answers
from browser import chromium, complaints
from steadygrad import report
from steadygrad.audit.schema_people import People
from steadygrad.errors import Failure
from steadygrad.report.people import sentence
from steadygrad.study.answers_page import render
from steadygrad.study.judgements import judge

pytest.importorskip("krippendorff", reason="needs the extra study")
RATES = {"<b>plain</b>": (0.05, 0.3), "robust": (0.4, 0.6)}


def text_of(page: str) -> str:
    page = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).replace("\N{NO-BREAK SPACE}", " ").split())


@pytest.fixture(scope="module")
def people() -> People:
    return judge(answers(DESIGNS[1], RATES, 0), title="What <i>do</i> you see?")


def test_the_page_says_every_share_with_its_interval_and_counts(people: People) -> None:
    page = render(people)
    text = text_of(page)
    for row in people.models:
        for value in (row.fooled, row.reasonable):
            assert f"{100 * value.value:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}]" in text
    assert "11 persons, 30 images" in text
    assert "none stand beside these" in text  # no figure of the paper is known
    assert "<b>plain" not in page and "What <i>" not in page  # noqa: PT018
    assert render(people) == page


def test_it_is_a_section_of_an_audit_s_page(audited: Path, people: People) -> None:
    before = report.write(audited).read_text(encoding="utf-8")
    people.write(audited / People.FILE)
    page = report.write(audited).read_text(encoding="utf-8")
    assert 'id="people"' not in before
    assert '<a href="#people">People</a>' in page
    assert sentence(people).split(" fooled")[0] in text_of(page).replace("&lt;", "<").replace("&gt;", ">")
    path = audited / People.FILE
    path.write_text(path.read_text(encoding="utf-8").replace('"persons": 11', '"persons": 12', 1), encoding="utf-8")
    with pytest.raises(Failure, match=r"people\.json is damaged or was edited: run `steadygrad study report` again"):
        report.write(audited)


def test_what_cannot_be_said_is_said_in_words() -> None:
    one = judge(answers(Design(1, 5, 5, 0.0, 0.0), RATES, 0), models=("unseen",))
    assert sentence(one).startswith("10 answers of 1 person: too few to say")
    text = text_of(render(one))
    assert "no answers" in text and re.search(r"too few: \d of 5", text) and not re.search(r"\bnan\b", text)  # noqa: PT018
    nobody = judge(answers(DESIGNS[0], RATES, 0).assign(finished=False))
    assert sentence(nobody) == "No answers are left: the rules leave out all 11 persons who answered."
    assert "did not finish 11" in text_of(render(nobody))
    assert "Agreement" not in render(nobody)


@pytest.mark.slow
def test_everyone_can_use_the_page(people: People, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(render(people), encoding="utf-8")
    with chromium() as browser:
        for width in (390, 1280):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.goto((tmp_path / "page.html").as_uri())
            assert complaints(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
