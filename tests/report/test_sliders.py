"""The sliders of the gallery: in a browser without network, by keyboard, on paper and without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from browser import chromium, complaints
from report.fake_summary import EPS, draw, full
from steadygrad import report
from steadygrad.audit.schema import Summary
from steadygrad.report import samples

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def _moving() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The first two samples of the first model along three radii, the change and the maps growing with them."""
    summary, arrays = full(["plain"])
    clean, radii = arrays["clean_0"], (0.5 * EPS, EPS, 2 * EPS)
    arrays["along_0"] = np.stack([clean[:2] + eps for eps in radii], 1)
    for a in range(2):
        arrays[f"along_map_0_{a}"] = np.stack([arrays[f"map_clean_0_{a}"][:2] + 10 * eps for eps in radii], 1)
    for row in summary["gallery"]["models"]["plain"][:2]:
        row["steps"] = [{"eps": eps, "prediction": "9", "confidence": eps} for eps in radii]
    return summary, arrays


def test_steps_hold_the_pictures_of_their_radii_on_one_scale() -> None:
    summary, arrays = _moving()
    first, _, third, *_ = samples.attacked_samples(Summary.model_validate(summary), arrays, 0)
    assert [step.says for step in first.steps] == ["0", "0.05", "0.1", "0.2"]
    assert first.steps[first.start].says == "0.1"
    assert not third.steps
    assert samples.scale(arrays, 0) == pytest.approx(2 * EPS)
    said = first.groups[0][1]
    assert [step.groups[0][1] for step in first.steps] == [said, "9 · 5.0 %", "9 · 10.0 %", "9 · 20.0 %"]
    assert [step.groups[1][1] for step in first.steps] == ["none", "up to ±0.05", "up to ±0.1", "up to ±0.2"]
    pictures = [[group[2][-1].source for group in step.groups] for step in first.steps]
    assert len({source for step in pictures for source in step}) == 4 * len(pictures)
    # At no radius there is nothing but the clean input and its maps.
    assert pictures[0][0] == first.groups[0][2][0].source
    assert pictures[0][2] == first.groups[3][2][0].source
    tops = {group[1] for step in first.steps for group in step.groups[2:3]}
    assert tops == {first.groups[3][1]}


def test_pictures_along_sliders_have_a_room_of_their_own() -> None:
    _, arrays = _moving()
    assert samples.reduction(arrays) == 1
    arrays["along_0"] = np.zeros((6, 8, 3, 224, 224))
    assert samples.reduction(arrays) == 4


def _strip(page: Page) -> list[list[str]]:
    """Sources and captions of the first sample of the gallery, as they are shown."""
    script = "(images) => images.map((i) => [i.src, i.closest('figure').innerText])"
    return page.locator("#gallery .strip").first.locator("img").evaluate_all(script)  # type: ignore[no-any-return]


def test_a_slider_moves_pictures_by_keyboard_from_a_file(browser: Browser, audited: Path) -> None:
    page = browser.new_context(offline=True).new_page()
    failed: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(report.write(audited).as_uri())
    sliders = page.get_by_role("slider", name="Radius digits")
    assert sliders.count() == 2
    slider, still = sliders.first, _strip(page)
    assert slider.get_attribute("aria-valuetext") == "ε 0.1, as counted"
    slider.focus()
    page.keyboard.press("End")
    moved = _strip(page)
    changed = [i for i, (before, after) in enumerate(zip(still, moved, strict=True)) if before[0] != after[0]]
    assert changed == [1, 2, 4, 6]  # what is perturbed, its change, and each map after the attack
    assert "up to ±0.2" in moved[2][1]
    prediction = moved[1][1].split("\n")[-1]
    assert slider.get_attribute("aria-valuetext") == page.locator(".slide output").first.inner_text()
    assert prediction in (slider.get_attribute("aria-valuetext") or "")
    page.keyboard.press("Home")
    zero = _strip(page)
    assert zero[1][0] == zero[0][0]
    assert zero[4][0] == zero[3][0]
    assert complaints(page) == []
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert _strip(page) == still
    assert not slider.is_visible()
    page.emulate_media(media="screen")
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="as counted").first.click()
    assert _strip(page) == still
    assert slider.input_value() == "4"
    assert failed == []


def test_without_scripts_the_pictures_stand_still(browser: Browser, audited: Path) -> None:
    page = browser.new_context(java_script_enabled=False, offline=True).new_page()
    page.goto(report.write(audited).as_uri())
    assert page.locator("#gallery .strip").first.is_visible()
    assert page.locator(".slide").count() == 2
    assert not page.locator(".slide").first.is_visible()


def test_names_of_others_stay_text(browser: Browser) -> None:
    summary, arrays = _moving()
    evil = "<img src=x onerror=alert(1)>"
    for row in summary["gallery"]["models"]["plain"]:
        row["id"] = evil
        row["steps"] = [{**step, "prediction": evil} for step in row["steps"]]
    page = browser.new_page()
    asked: list[str] = []
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    page.set_content(draw(summary, arrays))
    page.get_by_role("slider").first.press("End")
    assert page.locator("img[src=x]").count() == 0
    assert "<img src=x" in _strip(page)[1][1]
    assert asked == []
