"""People in a real browser: with the mouse, by keyboard on a phone, in two tabs, going away, coming back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra study")
pytest.importorskip("playwright", reason="needs Playwright")

from playwright import sync_api

from steadygrad.study.database import Database
from study.serving import Server

pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = Path(__file__).parents[1] / "axe" / "axe.min.js"
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; tests are skipped, visibly, without."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: install it (chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """Somebody with a browser; errors of a page, and whatever its policy stops, are noted."""

    def __init__(self, browser: Any, server: Server, size: dict[str, int] | None = None) -> None:
        self.server, self.errors = server, []
        self.context = browser.new_context(viewport=size or {"width": 1280, "height": 900}, locale="en-GB")
        self.page = self.tab()

    def tab(self) -> Any:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        page.set_default_timeout(20_000)
        return page

    def consent(self) -> None:
        self.page.goto(self.server.url)
        self.page.check("[name=agree]")
        self.page.click("form [type=submit]")

    def shown(self, position: int, page: Any = None) -> Any:
        """The form at a position, past what is said before it."""
        page = page or self.page
        form = f'form[data-ready][data-position="{position}"]'
        page.wait_for_selector(f"{form}, #trial h2")
        if page.query_selector("#trial h2"):
            page.click("#trial button")
        return page.wait_for_selector(form)

    def answer(self, position: int, page: Any = None) -> None:
        """Choose with the mouse: one, several, none, or a side, by the position."""
        page = page or self.page
        form = self.shown(position, page)
        boxes = form.query_selector_all("[name=chosen]")
        if not boxes:
            form.query_selector_all("[name=preferred]")[position % 3].check()
        elif position % 5 == 4:
            form.query_selector("[name=none]").check()
        else:
            boxes[position % 10].check()
            if position % 2:
                boxes[(position + 1) % 10].check()
                form.query_selector_all("[name=best]")[1].check()
        form.query_selector("[type=submit]").click()
        if position < 2:  # practice says what was right
            page.click("form button[type=button]")

    def close(self) -> None:
        self.context.close()
        assert self.errors == []


def rows_of(server: Server) -> list[dict[str, Any]]:
    database = Database(server.database)
    rows = database.rows()
    database.close()
    return rows


def test_a_person_with_the_mouse_answers_everything(chromium, server):
    visitor = Visitor(chromium, server)
    visitor.consent()
    for position in range(34):
        visitor.answer(position)
    visitor.page.wait_for_url("**/done")
    visitor.close()
    rows = rows_of(server)
    assert [row["position"] for row in rows] == list(range(34))
    assert {row["finished"] for row in rows} == {True}
    for row in rows:
        position, options = row["position"], row["options"]
        if row["kind"] == "maps":
            assert row["preferred"] == (row["left"], row["right"], None)[position % 3]
        elif position % 5 == 4:
            assert (row["unrecognizable"], row["chosen"], row["best"]) == (True, [], None)
        else:
            chosen = [options[position % 10]] + [options[(position + 1) % 10]] * (position % 2)
            assert sorted(row["chosen"]) == sorted(chosen)
            # The second of those named, in the order of the buttons.
            assert row["best"] == max(chosen, key=options.index)
        assert 0 < row["seconds"] < 20


def test_a_person_with_the_keyboard_on_a_phone(chromium, server):
    visitor = Visitor(chromium, server, PHONE)
    page = visitor.page
    page.goto(server.url)
    while page.evaluate("document.activeElement.name") != "agree":
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for position in range(34):
        form = f'form[data-ready][data-position="{position}"]'
        page.wait_for_selector(f"{form}, #trial h2")
        if page.query_selector("#trial h2"):
            page.keyboard.press("Enter")
            page.wait_for_selector(form)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.keyboard.press(str(position % 3 + 1))
        page.keyboard.press("Enter")
        if position < 2:
            page.wait_for_selector("form button[type=button]")
            page.keyboard.press("Enter")
    page.wait_for_url("**/done")
    visitor.close()
    rows = rows_of(server)
    assert [row["position"] for row in rows] == list(range(34))
    # Where the answers are digits, a key is the answer that it is called.
    assert all(row["best"] == str(row["position"] % 3 + 1) for row in rows if row["kind"] != "maps")


def test_two_tabs_a_reload_and_a_withdrawal_leave_the_right_rows(chromium, server):
    first, gone = Visitor(chromium, server), Visitor(chromium, server)
    for visitor in (first, gone):
        visitor.consent()
        for position in range(4):
            visitor.answer(position)
    first.shown(4)
    first.page.reload()  # goes on where it was
    first.answer(4)
    first.shown(5)
    second = first.tab()
    second.goto(f"{server.url}/trials")
    first.shown(5, second)
    first.answer(5)
    first.answer(5, second)  # both show the same trial, and it is taken once
    first.answer(6, second)
    first.shown(7, second)
    first.answer(6)
    first.shown(7)
    first.answer(7)
    first.shown(8)
    gone.page.click("text=Withdraw")
    gone.page.click("button[type=submit]")
    gone.page.wait_for_selector("text=Your answers are deleted")
    first.close()
    gone.close()
    rows = rows_of(server)
    assert [row["position"] for row in rows] == list(range(8))
    assert len({row["person"] for row in rows}) == 1


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("size", [PHONE, {"width": 1280, "height": 900}], ids=["phone", "wide"])
def test_every_page_is_accessible(chromium, server, size):
    visitor = Visitor(chromium, server, size)
    page = visitor.page
    page.goto(server.url)
    clean(page)
    visitor.consent()
    page.wait_for_selector("#trial h2")
    clean(page)
    for position in range(32):
        visitor.answer(position)
        if position == 1:
            visitor.shown(2)
            page.locator("[name=chosen]").nth(0).check()
            page.locator("[name=chosen]").nth(3).check()
            clean(page)
            page.locator("[name=chosen]").nth(0).uncheck()
            page.locator("[name=chosen]").nth(3).uncheck()
    visitor.shown(32)
    clean(page)
    for path in ("withdraw", "admin", "nothing"):
        page.goto(f"{server.url}/{path}")
        clean(page)
    visitor.context.close()


def clean(page: Any) -> None:
    """No fault that axe-core knows; it is put in past the policy of the page, which forbids that to scripts."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    faults = [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found["violations"]]
    assert faults == []
