"""The page of a paper, made of the same blocks as the report of an audit."""

from __future__ import annotations

import re

import numpy as np
import pytest

from report.test_page import Page
from steadygrad.measuring.statistics import Estimate
from steadygrad.papers.paper_page import claim_found, render
from steadygrad.papers.parts import fixed, percent
from steadygrad.report.blocks import Cell, Figure, Folded, Pictures, Section, Table, Text, tight
from steadygrad.report.png import Picture, change, image, tiled
from steadygrad.report.style import drawing, drawn

ESTIMATE = Estimate(0.25, -0.125, 0.5)
FOUND = ESTIMATE.plain()
CLAIM = {
    "text": "better <by> far", "needed": "at least 10 points", "verdict": "held", "found": FOUND, "unit": "points",
    "paper": "30 points", "detail": "on all images", "held": True,
}  # fmt: skip
MISSING = {**CLAIM, "text": "never tried", "found": None, "held": False, "verdict": "not measured", "paper": ""}
SUMMARY = {
    "version": "0.1.0",
    "created": "2025-01-31T12:00:00+00:00",
    "machine": {"platform": "Linux", "device": "cpu", "threads": 2},
    "seconds": 75.2,
    "spent": {"training": 70.0, "attacks": 5.2},
    "command": "steadygrad reproduce someone2020",
    "paper": {"name": "someone2020", "title": "A title", "reference": "Someone 2020", "says": "It helps."},
    "config": {"model": "mlp", "scale": "small", "seed": 3},
    "data": {"name": "digits", "training": 1437, "test": 360, "classes": ["0", "1"], "shape": [1, 8, 8]},
    "left_out": ["ImageNet"],
    "claims": [CLAIM, MISSING],
    "results": {},
}


@pytest.fixture(scope="module")
def text() -> str:
    from matplotlib.figure import Figure as Canvas

    with drawing(10.0):
        canvas = Canvas(figsize=(4, 2))
        canvas.subplots().plot([0, 1], [0, 1])
        figure = Figure(drawn(canvas, "a line from 0 to 1"), "A line.")
    differences = [fixed(found, 1, 100, "+") for found in (ESTIMATE, None)]
    rows = [("plain", [percent(ESTIMATE, shade=0.25, framed=True), *differences, Cell("yes", good=True)])]
    table = Table("A table.", ["Model", "Share", "Difference", "None", "Good"], rows, words=(3,))
    pixels = tiled(np.zeros((1, 2, 1, 4, 4)), np.array([[False, True]]))
    pictures = Pictures("Pictures.", ["", "a", "b"], [("x", [Picture(image(pixels), "two images"), None])], wide=True)
    maps = Pictures("Maps.", ["", "a"], [("x", [Picture(change(pixels, 1.0), "a signed map")])])
    sections = [
        Section("Clean & robust", [Text("Words."), table, figure]),
        Section("Maps", [pictures, Folded("More", [maps])]),
    ]
    return render(SUMMARY, sections)


def test_the_page_is_whole(text: str) -> None:
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"claims", "clean-robust", "maps", "reproduce"} <= set(ids)
    assert {(a.get("href") or "")[1:] for a in page.all("a")} <= set(ids)
    assert len(page.all("table")) == len(page.all("caption")) == 5
    assert [a["alt"] for a in page.all("img")] == ["two images", "a signed map"]
    assert not re.search(r"https?://", re.sub(r"data:[^\"]*", "", text))


def test_the_numbers_and_claims_are_there(text: str) -> None:
    words = Page(text).text
    for part in (
        "1 of 2 expectations held", "better <by> far", "25.0 points [-12.5, 50.0]", "not measured", "ImageNet",
        "25.0 [-12.5, 50.0]", "+25.0 [-12.5, +50.0]", "✓ yes", "1 min 15 s on cpu, 2 threads", "A title",
        "small, seed 3", "steadygrad reproduce someone2020", "1 min 10 s", '"scale": "small"',
    ):  # fmt: skip
        assert part in words, part
    assert 'class="num h2 diagonal"' in text


def test_what_a_claim_found_is_as_exact_as_its_bar() -> None:
    assert claim_found({**CLAIM, "needed": "at least 0.123 points"}) == "25.000 points [-12.500, 50.000]"
    assert claim_found({**CLAIM, "unit": "steps"}) == "0.25 steps [-0.125, 0.5]"
    assert claim_found(MISSING) == "not measured"


def test_numbers_are_not_broken_over_lines() -> None:
    assert tight("86.0 % [81.6, 89.5] of 3 samples") == "86.0\xa0% [81.6,\xa089.5] of 3 samples"
