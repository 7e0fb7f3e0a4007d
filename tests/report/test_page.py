"""The page: complete, self-contained, accessible, safe with foreign names, and equal for equal summaries."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report.fake_summary import NAMES, draw, full, minimal
from steadygrad import report
from steadygrad.audit.schema import Model, Summary
from steadygrad.errors import Failure, UsageError
from steadygrad.report import samples, wording
from steadygrad.report.sections import sections
from steadygrad.report.sections.headline_section import sentence

VOID = {"meta", "link", "img", "br", "input", "hr"}
SVG_EMPTY = {"path", "use", "line", "circle", "rect"}


class Page(HTMLParser):
    """Every start tag with its attributes, and the text, of a page; wrong nesting is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"repeated attribute in <{tag}>"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open[-1:]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words).replace("\N{NO-BREAK SPACE}", " "))

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def rendered() -> tuple[dict[str, Any], str]:
    summary, arrays = full()
    return summary, draw(summary, arrays)


def test_page_is_written_whole_and_small(audited: Path) -> None:
    path = report.write(audited)
    assert path == audited / "report" / "index.html"
    assert 20_000 < path.stat().st_size < 3_000_000
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert len(Page(text).all("img")) >= 2 * 3
    assert len(draw(*full())) < 3_000_000


def test_a_page_follows_from_the_settings_and_the_tables(audited: Path) -> None:
    first = report.write(audited).read_bytes()
    assert report.write(audited).read_bytes() == first
    summary = (audited / "summary.json").read_bytes()
    (audited / "summary.json").unlink()
    (audited / "report" / "index.html").unlink()
    assert report.write(audited).read_bytes() == first
    assert (audited / "summary.json").read_bytes() == summary


def test_equal_summaries_give_equal_pages() -> None:
    assert draw(*full()) == draw(*full())


def test_nothing_is_fetched(rendered: tuple[dict[str, Any], str]) -> None:
    found = Page(rendered[1])
    for _, attributes in found.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), value
    assert not re.search(r"https?://|//[a-z]|@import|url\((?!#)", re.sub(r"data:[^\"]*", "", rendered[1]))


def test_landmarks_language_and_headings(rendered: tuple[dict[str, Any], str]) -> None:
    found = Page(rendered[1])
    assert found.all("html")[0]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer", "h1", "title"):
        assert len(found.all(landmark)) == 1, landmark
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_ids_are_unique_and_references_resolve(rendered: tuple[dict[str, Any], str]) -> None:
    found = Page(rendered[1])
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {(a.get("href") or "")[1:] for a in found.all("a", "use")}
    wanted |= {a["aria-labelledby"] or "" for _, a in found.tags if "aria-labelledby" in a}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", rendered[1]))
    assert wanted <= set(ids)


def test_pictures_say_what_they_show(rendered: tuple[dict[str, Any], str]) -> None:
    found = Page(rendered[1])
    alts = [a.get("alt") or "" for a in found.all("img")]
    assert len(alts) == 6 * 5 * 7 + 100
    assert all(len(alt) > 8 for alt in alts)
    assert "Sample digits-test-00000, labeled 7, perturbed: predicted 0 · 91.0 %" in alts
    assert any("drawn from -0.1 to 0.1" in alt for alt in alts)
    figures = [a for a in found.all("svg") if a.get("aria-hidden") != "true"]
    assert len(figures) == 2 + 2 * 6
    for figure in figures:
        assert figure["role"] == "img"
        assert re.search(r"\d", figure["aria-label"] or "")


def test_tables_have_captions_scopes_and_a_box_to_scroll_in(rendered: tuple[dict[str, Any], str]) -> None:
    found = Page(rendered[1])
    assert len(found.all("table")) == len(found.all("caption")) >= 11
    assert all(a.get("scope") in ("col", "row", "rowgroup") for a in found.all("th"))
    boxes = [a for a in found.all("div") if "scroll" in (a.get("class") or "").split()]
    assert len(boxes) >= len(found.all("table"))
    assert all(a["tabindex"] == "0" and ("aria-labelledby" in a or "aria-label" in a) for a in boxes)


def test_every_number_of_the_headline_is_there(rendered: tuple[dict[str, Any], str]) -> None:
    summary, text = Summary.model_validate(rendered[0]), rendered[1]
    words = Page(text).text
    for model in summary.models:
        for value in (model.clean, model.robust):
            assert wording.estimate(value) in words
        for attack in model.attacks:
            for value in (attack.accuracy, attack.success_rate, attack.after_rounding):
                assert wording.estimate(value) in words
        assert model.verdict.text in words
    assert sentence(summary) in words
    assert summary.transfer is not None
    for row in summary.transfer.accuracy:
        assert all(wording.estimate(cell) in words for cell in row)
    assert summary.command in words


def test_a_refused_number_is_struck_and_explained_without_color(rendered: tuple[dict[str, Any], str]) -> None:
    text = rendered[1]
    headline = text[text.index('<section id="result"') : text.index('<section id="classes"')]
    assert headline.count("<s ") == 1
    row = next(row for row in headline.split("<tr") if ">distilled<" in row)
    assert re.search(r"<s class=\"value\">62\.0 %</s>", row)
    assert "✗</span> number refuted, because logits × 100" in row
    assert headline.count("✓</span> number holds") == 5


def test_failed_checks_are_open_and_passed_ones_closed(rendered: tuple[dict[str, Any], str]) -> None:
    text = rendered[1]
    checks = text[text.index('<section id="checks"') : text.index('<section id="transfer"')]
    found = re.findall(r"<details( open)?>\s*<summary><h3>([^<]+)", checks)
    assert [name for opened, name in found if opened] == ["distilled"]
    assert len(found) == 6


def test_the_smallest_summary_gives_a_page() -> None:
    text = draw(*minimal())
    found = Page(text)
    ids = {attributes.get("id") for _, attributes in found.tags}
    assert not ids & {"transfer", "curves"}
    assert "From every class" not in found.text
    assert {"result", "attacks", "checks", "gallery", "reproduce"} <= ids
    assert "not measured" in found.text
    assert "None" not in found.text
    assert "Median distance" not in found.text
    assert len(found.all("img")) == 5 * 3


def test_a_summary_without_gallery_gives_a_page() -> None:
    summary, _ = minimal()
    summary["gallery"] = None
    summary["models"][0] |= {"curve": None, "distances": None, "gradient_norm": None, "confidence": None}
    summary["command"] = ""
    found = Page(draw(summary, {}))
    assert not found.all("img")
    assert not {"distances", "curves", "gallery"} & {attributes.get("id") for _, attributes in found.tags}
    assert "started from Python" in found.text


def test_foreign_names_are_escaped() -> None:
    evil = '<script>alert("1")</script> id="main" $x^$ 名前'
    summary, arrays = full([evil, *NAMES[1:]])
    summary["data"]["classes"][9] = '"><img src=x onerror=alert(1)>'
    for model in summary["models"]:
        model["by_class"][9]["name"] = '"><img src=x onerror=alert(1)>'
    for rows in summary["gallery"]["models"].values():
        for row in rows:
            row |= {k: '"><img src=x onerror=alert(1)>' for k, v in row.items() if v == "9"}
    summary["gallery"]["grid"]["classes"][9] = '"><img src=x onerror=alert(1)>'
    summary["command"] = "steadygrad audit '<b>' && echo </code>"
    text = draw(summary, arrays)
    found = Page(text)
    assert len(found.all("script")) == 1
    assert not found.all("b") or all("onerror" not in a for a in found.all("img"))
    assert all(a.get("src") != "x" for a in found.all("img"))
    assert evil in found.text
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert ids.count("main") == 1


def test_large_color_pictures_are_reduced_and_the_page_says_so() -> None:
    summary, arrays = full(NAMES[:2])
    rng = np.random.default_rng(0)
    for name in list(arrays):
        if name.startswith(("clean_", "adversarial_")):
            arrays[name] = rng.random((5, 3, 224, 224))
        if name.startswith("map_"):
            arrays[name] = rng.random((5, 224, 224))
    summary["data"]["shape"] = [3, 224, 224]
    text = draw(summary, arrays)
    assert len(text) < 3_000_000
    assert re.search(r"averaged over blocks of (\d) × \1 pixels", text)


def test_features_without_a_plane_are_drawn_as_a_row() -> None:
    summary, arrays = minimal()
    flat = {name: a.reshape(len(a), -1) if a.ndim > 1 else a for name, a in arrays.items()}
    assert len(Page(draw(summary, flat)).all("img")) == 5 * 3


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run of an audit at .*nowhere"):
        report.write(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1 nothing")])
def test_a_missing_or_damaged_table_is_refused(audited: Path, damage: Callable[[Path], object]) -> None:
    for path in (audited / "tables").rglob("*.parquet"):
        damage(path)
    with pytest.raises(Failure, match=r"tables"):
        report.write(audited)
    assert not (audited / "report").exists()


def test_damaged_facts_are_refused(audited: Path) -> None:
    (audited / "tables" / "facts.json").write_text("{", encoding="utf-8")
    with pytest.raises(Failure, match=r"cannot read .*facts\.json: .*run the same command again"):
        report.write(audited)


def test_what_an_attack_did_is_said_in_words() -> None:
    summary, arrays = full()
    entries = summary["gallery"]["models"]["plain"]
    entries[1]["clean_prediction"] = "9"
    entries[2]["distance"] = None
    entries[3] |= {"adversarial_prediction": "0", "distance": None}
    assert [row.outcome for row in samples.attacked_samples(Summary.model_validate(summary), arrays, 0)] == [
        "changed by PGD-40 at distance 0.1",
        "wrong before any attack",
        "changed by PGD-40",
        "PGD-40 did not change this prediction",
        "no attack changed this prediction",
    ]


def test_every_part_of_the_summary_is_drawn_by_a_section() -> None:
    drawn = {part for section in sections() for part in section.parts.split()}
    # What the head of the page says needs no section.
    head = {"schema_", "created", "seconds", "threat", "models", "sha256"}
    assert set(Summary.model_fields) - head == {part for part in drawn if "." not in part} - {"harden", "people"}
    assert {f"models.{name}" for name in Model.model_fields} == {part for part in drawn if "." in part}


def test_sections_are_told_apart() -> None:
    for names in ([s.name for s in sections()], [s.short for s in sections()], [s.title for s in sections()]):
        assert len(set(names)) == len(sections())
