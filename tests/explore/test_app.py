"""The explorer's addresses, and its page in a browser: by mouse and keyboard, with pictures of one's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient

from browser import chromium, complaints
from explore.conftest import NAME
from explore.test_uploads import file
from steadygrad.explore.app import app_of
from steadygrad.explore.latest import Superseded
from steadygrad.explore.live import Live
from steadygrad.explore.uploads import BODY
from steadygrad.serving.port import address, bound

LEAD = "PGD, 5 steps"


def _asked(live: Live, **changed: Any) -> Any:
    query = {"image": live.run.data.ids[0], "attack": LEAD, "step": 5, "page": "a", "turn": 1} | changed
    return TestClient(app_of(live)).get("/reached", params=query)


def test_a_step_is_told_in_pictures_and_words(live: Live) -> None:
    found = _asked(live).json()
    assert found["eps"] == "0.025"
    assert [model["name"] for model in found["models"]] == ["first", NAME]
    for model in found["models"]:
        assert model["image"].startswith("data:image/png;base64,")
        assert len(model["maps"]) == 2
        assert model["largest"].startswith("up to ±0.025")
        assert " · " in model["said"]
    still = _asked(live, step=0).json()["models"][0]
    assert (still["largest"], still["said"], still["changed"]) == ("none", still["clean"], False)


@pytest.mark.parametrize(
    ("changed", "status", "says"),
    [
        ({"image": "../../etc/passwd"}, 410, "bring it again"),
        ({"image": "x" * 400}, 422, "at most 300"),
        ({"attack": "<i>"}, 422, "no attack"),
        ({"step": 41}, 422, "less than or equal to 40"),
        ({"step": -1}, 422, "greater than or equal to 0"),
        ({"step": "nan"}, 422, "integer"),
        ({"turn": "x"}, 422, "integer"),
    ],
)
def test_what_does_not_fit_is_refused(live: Live, changed: dict[str, Any], status: int, says: str) -> None:
    answer = _asked(live, **changed)
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_what_a_later_request_replaced_is_told(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*given: Any) -> Any:
        raise Superseded

    monkeypatch.setattr(live, "reached", reached)
    assert _asked(live).status_code == 409


def test_pictures_of_ones_own_are_taken_or_refused(live: Live) -> None:
    client = TestClient(app_of(live))
    kind = {"content-type": "application/octet-stream"}
    found = client.post("/picture", content=file(), headers=kind).json()
    answer = _asked(live, image=found["image"]).json()
    assert [model["certified"] for model in answer["models"]] == [None, None]
    for content, status, says in (
        (b"<svg onload=alert(1)>", 422, "no picture"),
        (b"", 422, ""),
        (bytes(BODY + 1), 413, "8,388,608 bytes at most"),
    ):
        refused = client.post("/picture", content=content, headers=kind)
        assert refused.status_code == status
        assert says in refused.json()["detail"]
        assert "svg" not in refused.text
    foreign = client.post("/picture", content=file(), headers=kind | {"origin": "http://elsewhere"})
    assert foreign.status_code == 403


def test_names_never_become_markup(live: Live) -> None:
    page = TestClient(app_of(live)).get("/")
    assert "<b>second" not in page.text
    assert "&lt;b&gt;second&lt;/b&gt;" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    assert "style=" not in page.text


@contextmanager
def _served(live: Live) -> Iterator[str]:
    import uvicorn

    with bound("127.0.0.1", 0) as taken:
        server = uvicorn.Server(uvicorn.Config(app_of(live), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        try:
            yield address(taken)
        finally:
            server.should_exit = True
            thread.join(20)


def test_the_page_in_a_browser(live: Live) -> None:
    name = live.run.data.ids[-1]
    with _served(live) as where, chromium() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 800})
        failed: list[str] = []
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("console", lambda message: failed.append(message.text) if message.type == "error" else None)
        page.goto(where)
        page.locator(".thumbnail[aria-pressed=true]").wait_for()
        page.get_by_label("Any sample").select_option(name)
        slider = page.get_by_role("slider")
        slider.focus()
        page.keyboard.press("End")
        page.locator("#said", has_text="ε 0.2").wait_for()
        moved = page.locator(".model .image").first.get_attribute("src")
        assert (slider.get_attribute("aria-valuetext") or "").startswith("0.2: first ")
        for _ in range(30):  # faster than anything is computed
            page.keyboard.press("ArrowLeft")
        page.locator("#said", has_text="ε 0.05").wait_for()
        assert page.locator(".model .image").first.get_attribute("src") != moved
        assert page.locator(".model b:has-text('second')").count() == 0
        page.get_by_label("Attack").select_option("FGSM")
        link, shown = page.url, page.locator(".prediction").all_inner_texts()
        assert complaints(page) == []
        page.goto(link)
        page.locator("#said", has_text="ε 0.05").wait_for()
        assert page.get_by_label("Attack").input_value() == "FGSM"
        assert page.get_by_label("Any sample").input_value() == name
        assert page.locator(".prediction").all_inner_texts() == shown
        own = {"name": "<img src=x>.png", "mimeType": "image/png", "buffer": file()}
        page.get_by_label("or your own").set_input_files(own)  # type: ignore[arg-type]
        page.locator("#chosen", has_text="your picture").wait_for()
        assert failed == []
        page.get_by_label("or your own").set_input_files({**own, "buffer": b"no picture"})  # type: ignore[arg-type]
        page.get_by_role("alert").filter(has_text="the file is no picture").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
