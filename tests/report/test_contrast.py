"""The colors of the page: readable in light and dark, and the same in CSS and figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import steadygrad.report
from steadygrad.report import style

CSS = (Path(steadygrad.report.__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")
TEXT = ("ink", "muted", "good", "bad", "link", "series-0", "series-1", "series-2", "series-3", "series-4", "series-5")
PAIRS = [
    *((text, ground) for text in TEXT for ground in ("paper", "wash")),
    *(("ink", f"heat-{level}") for level in range(10)),
]


def _variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def _themes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
    return {"light": _variables(light), "dark": _variables(dark)}


def luminance(color: str) -> float:
    """Relative luminance of sRGB, as WCAG 2 defines it."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_formula() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_stands_out(theme: str, text: str, ground: str) -> None:
    colors = _themes()[theme]
    assert contrast(colors[text], colors[ground]) >= 4.5


def test_both_themes_define_the_same_colors_and_nothing_else_is_used() -> None:
    light, dark = _themes().values()
    assert light.keys() == dark.keys()
    used = set(re.findall(r"var\(--([\w-]+)", CSS)) - {"sans", "serif", "mono"}
    assert used <= light.keys()
    # Beyond the variables only the two color scales may name colors.
    rules = re.sub(r":root \{.*?\}", "", CSS, flags=re.DOTALL)
    assert all("linear-gradient" in line for line in rules.splitlines() if re.search(r"#[0-9a-f]{6}\b", line))


def test_figures_and_page_share_their_colors() -> None:
    light = _themes()["light"]
    assert [light[f"series-{i}"] for i in range(6)] == list(style.SERIES)
    assert (light["ink"], light["muted"], light["line"], light["paper"]) == (
        style.INK,
        style.MUTED,
        style.GRID,
        style.PAPER,
    )


def test_narrow_print_motion_and_focus_are_provided_for() -> None:
    for rule in ("max-width: 44rem", "@media print", "prefers-color-scheme: dark", ":focus-visible", "tabular-nums"):
        assert rule in CSS
    assert "::details-content" in CSS
    assert "image-rendering: pixelated" in CSS
