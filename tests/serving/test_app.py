from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra study")

from fastapi import Body, FastAPI
from fastapi.testclient import TestClient

from steadygrad.errors import UsageError
from steadygrad.serving.app import POLICY, make_app
from steadygrad.serving.extra import need
from steadygrad.serving.limits import Limits
from steadygrad.serving.pages import Pages
from steadygrad.serving.port import address, bound


def _app(**limits: float) -> FastAPI:
    app = make_app("Example", limits=Limits(**limits) if limits else None)

    @app.post("/taken")
    def taken(number: int = Body(embed=True, ge=0)) -> dict[str, int]:
        return {"number": number}

    @app.get("/broken")
    def broken() -> None:
        raise ValueError("a secret")

    return app


def _client(app: FastAPI) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize("path", ["/static/page.css", "/static/serving.css", "/nothing", "/broken"])
def test_every_answer_has_the_headers(path):
    headers = _client(_app()).get(path).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in POLICY
    assert headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")


def test_it_documents_nothing_of_itself():
    client = _client(_app())
    assert {client.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")} == {404}


def test_a_refusal_is_a_page_for_people_and_says_nothing_of_what_was_sent():
    client = _client(_app())
    page = client.get("/<b>", headers={"accept": "text/html"})
    assert page.status_code == 404
    assert "<h1>Not found</h1>" in page.text
    assert "<b>" not in page.text
    failed = client.get("/broken")
    assert failed.status_code == 500
    assert "secret" not in failed.text
    misread = client.post("/taken", json={"number": "<script>"})
    assert misread.status_code == 422
    assert "script" not in misread.text


def test_a_large_body_is_refused_announced_or_not():
    client = _client(_app(body=1000))
    assert client.post("/taken", content=b"0" * 10_000_000).status_code == 413
    assert client.post("/taken", content=iter([b"0" * 600, b"0" * 600])).status_code == 413
    assert client.post("/taken", json={"number": 1}).json() == {"number": 1}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://testserver"}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "https://testserver"}, 200),
        ({"origin": "http://elsewhere"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://testserver"}, 403),
    ],
)
def test_pages_of_other_sites_change_nothing(headers, status):
    assert _client(_app()).post("/taken", json={"number": 1}, headers=headers).status_code == status


def test_a_flood_is_bounded():
    client = _client(_app(rate=0.001, burst=20))
    answers = [client.post("/taken", json={"number": 1}) for _ in range(200)]
    assert [a.status_code for a in answers] == [200] * 20 + [429] * 180
    assert int(answers[-1].headers["retry-after"]) > 0


def test_templates_escape(tmp_path: Path):
    (tmp_path / "own.html.j2").write_text('{% extends "base.html.j2" %}{% block main %}{{ name }}{% endblock %}')
    page = Pages(tmp_path).page("own.html.j2", title="</title>", name="<img src=x>", language="de")
    text = bytes(page.body).decode()
    assert "&lt;img src=x&gt;" in text
    assert "&lt;/title&gt;" in text
    assert '<html lang="de">' in text


def test_a_port_in_use_is_named():
    with bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert address(taken) == f"http://127.0.0.1:{port}"
        with pytest.raises(UsageError, match=f"--port {port} is in use by another program: choose another one"):
            bound("127.0.0.1", port)


@pytest.mark.parametrize("host", ["nothing.invalid", "192.0.2.1", "a" * 300])
def test_a_host_that_is_none_is_named(host):
    with pytest.raises(UsageError, match=r"--host '.*' is no address of"):
        bound(host, 0)


def test_a_missing_extra_is_named():
    with pytest.raises(UsageError, match=r"study serve needs no_such_thing, which is not .* 'steadygrad\[study\]'"):
        need("study serve", "json", "no_such_thing")
