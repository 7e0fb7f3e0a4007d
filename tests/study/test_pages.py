from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra study")

from fastapi.testclient import TestClient
from sqlmodel import select

from steadygrad.errors import UsageError
from steadygrad.serving.limits import Limits
from steadygrad.study import settings
from steadygrad.study.database import Database
from steadygrad.study.database_tables import Person
from steadygrad.study.server import app_of
from study import studies

TOKEN = "the token"
LIMITS = Limits(rate=1000, burst=10_000)


class Study:
    """A study that is served, without a network."""

    def __init__(self, folder: Path, url: str, **more: Any) -> None:
        self.design = studies.small(folder, **more)
        self.folder, self.database = folder, Database(url, "key")

    def browser(self, limits: Limits = LIMITS) -> TestClient:
        return TestClient(app_of(self.folder, self.database, TOKEN, limits))

    def person(self, **more: str) -> TestClient:
        """Somebody who has consented."""
        client = self.browser()
        form = {"version": "1", "language": "en", "agree": "yes", **more}
        assert client.post("/consent", data=form, follow_redirects=False).headers["location"] == "/trials"
        return client


@pytest.fixture
def study(tmp_path: Path, url: str) -> Iterator[Study]:
    found = Study(tmp_path / "study", url, trials=4, maps=1, practice=1)
    yield found
    found.database.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Study]:
    """The same on SQLite alone, for what no database has to do with."""
    found = Study(tmp_path / "study", f"sqlite:///{tmp_path}/a.sqlite", trials=4, maps=1, practice=1)
    yield found
    found.database.close()


def given(trial: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"preferred": "left"} if trial["kind"] == "maps" else {"chosen": ["1", "2"], "best": "2"}
    return {"stimulus": trial["stimulus"], "seconds": 1.25, **choice, **more}


def answered(client: TestClient, positions: range) -> list[dict[str, Any]]:
    trials = client.get("/api/trials").json()["trials"]
    return [client.put(f"/api/answers/{i}", json=given(trials[i])).json() for i in positions]


def test_all_trials_make_exactly_the_rows_that_they_should(study):
    client = study.person(code="ab-1")
    said = client.get("/api/trials").json()
    assert said["next"] == 0
    practice = client.put("/api/answers/0", json=given(said["trials"][0])).json()
    assert practice == {"stored": True, "next": 1, "label": study.design.trials(0)[0].stimulus.label, "correct": False}
    assert answered(client, range(1, 6))[-1] == {"stored": True, "next": 6}
    rows, trials = study.database.rows(), study.design.trials(0)
    assert [row["position"] for row in rows] == list(range(6))
    for row, trial in zip(rows, trials):
        stimulus = trial.stimulus
        assert (row["kind"], row["stimulus"], row["sample"], row["label"]) == (
            trial.kind, stimulus.id, stimulus.sample, stimulus.label,
        )  # fmt: skip
        if trial.kind == "maps":
            assert (row["left"], row["right"], row["preferred"]) == (*trial.sides, trial.sides[0])
            continue
        assert (row["best"], sorted(row["chosen"]), row["options"]) == ("2", ["1", "2"], list(trial.options))
        assert row["fooled"] == (stimulus.predicted == "2" if trial.kind == "labels" else None)
        assert row["reasonable"] == (stimulus.predicted in ("1", "2") if trial.kind == "labels" else None)
        wanted = {"clean": stimulus.label, "practice": stimulus.label, "attention": stimulus.told}.get(trial.kind)
        assert row["correct"] == (None if wanted is None else wanted == "2")
    assert {row["finished"] for row in rows} == {True}
    assert [(r.code, r.finished) for r in study.database.recruitments()] == [("ab-1", True)]
    assert client.get("/trials", follow_redirects=False).headers["location"] == "/done"
    assert "stored" in client.get("/done").text


def test_an_answer_that_comes_again_is_one_row(study):
    client = study.person()
    trial = client.get("/api/trials").json()["trials"][0]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda s: client.put("/api/answers/0", json=given(trial, seconds=s)).json(), range(1, 9)))
    assert sum(answer["stored"] for answer in found) == 1
    assert {answer["next"] for answer in found} == {1}
    assert len(study.database.rows()) == 1


def test_withdrawal_deletes_everything_and_the_browser_forgets(study):
    client, other = study.person(), study.person()
    answered(client, range(3))
    answered(other, range(1))
    assert "Delete my answers" in client.get("/withdraw").text
    assert "are deleted" in client.post("/withdraw").text
    assert study.database.count() == {"persons": 1, "finished": 0, "answers": 1}
    assert client.get("/api/trials").status_code == 401
    assert not client.cookies


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"chosen": ["1", "x"]}, 422),
        ({"chosen": ["1", "1"], "best": "1"}, 422),
        ({"chosen": [], "best": None}, 422),
        ({"best": "3"}, 422),
        ({"unrecognizable": True}, 422),
        ({"preferred": "left"}, 422),
        ({"preferred": "up"}, 422),
        ({"seconds": -1}, 422),
        ({"seconds": 1e9}, 422),
        ({"seconds": "1"}, 422),
        ({"seconds": None}, 422),
        ({"chosen": "1"}, 422),
        ({"chosen": ["1"] * 101}, 422),
        ({"chosen": ["1" * 201]}, 422),
        ({"person": "other"}, 422),
        ({"stimulus": "forged"}, 409),
        ({"stimulus": "x" * 33}, 422),
        ({"chosen": ["1", "\x00"]}, 422),
    ],
)
def test_what_cannot_be_an_answer_is_refused(plain, change, status):
    client = plain.person()
    trials = client.get("/api/trials").json()["trials"]
    answered(client, range(1))
    refused = client.put("/api/answers/1", json=given(trials[1], **change))
    assert refused.status_code == status
    assert len(plain.database.rows()) == 1


@pytest.mark.parametrize(("place", "status"), [("2", 409), ("6", 404), ("-1", 422), ("x", 422), ("99999999999", 422)])
def test_positions_are_answered_in_their_order(plain, place, status):
    client = plain.person()
    trial = client.get("/api/trials").json()["trials"][2]
    assert client.put(f"/api/answers/{place}", json=given(trial)).status_code == status
    for text in ("NaN", "Infinity"):
        body = f'{{"stimulus": "{trial["stimulus"]}", "seconds": {text}, "chosen": ["1"], "best": "1"}}'
        assert client.put("/api/answers/0", content=body).status_code == 422
    assert plain.database.rows() == []


def test_a_flood_of_answers_and_large_bodies_are_bounded(plain):
    client = plain.person()
    trial = client.get("/api/trials").json()["trials"][0]
    assert client.put("/api/answers/0", content=b"0" * 10_000_000).status_code == 413
    limited = plain.browser(Limits(rate=0.001, burst=50))
    limited.cookies = client.cookies
    found = [limited.put("/api/answers/0", json=given(trial)).status_code for _ in range(200)]
    assert (found.count(200), found.count(429)) == (50, 150)
    assert len(plain.database.rows()) == 1


def test_forged_persons_and_pictures_are_nobody_and_nothing(plain):
    client = plain.browser()
    client.cookies.set("person", "forged")
    assert client.get("/api/trials").status_code == 401
    assert client.put("/api/answers/0", json={"stimulus": "x", "seconds": 1}).status_code == 401
    assert client.get("/trials", follow_redirects=False).headers["location"] == "/"
    for name in ("nothing", "..%2f..%2fdesign", "%00"):
        assert client.get(f"/pictures/{name}.png").status_code == 404


def test_nothing_tells_the_model_the_label_or_the_prediction(plain):
    client = plain.person()
    said = client.get("/api/trials").json()
    assert said["trials"][0].keys() == {"position", "kind", "stimulus", "image", "options"}
    kinds = {trial["kind"] for trial in said["trials"]}
    assert kinds == {"practice", "labels", "maps"}  # controls look like all others
    text = str(said["trials"])
    assert not any(word in text for word in (*studies.MODELS, "PGD", "linf", "clean/", "labels/", "other"))
    picture = client.get(f"/pictures/{said['trials'][0]['image']}.png")
    assert picture.headers["content-type"] == "image/png"


def test_consent_is_asked_for_and_has_a_version(plain):
    client = plain.browser()
    form = {"version": "1", "language": "en", "agree": "yes"}
    assert "Please tick the box" in client.post("/consent", data={**form, "agree": ""}).text
    assert "The text has changed" in client.post("/consent", data={**form, "version": "0"}).text
    assert plain.database.count()["persons"] == 0
    client.post("/consent", data=form)
    client.post("/consent", data=form)  # a second click
    assert plain.database.count()["persons"] == 1
    refused = plain.browser().post("/consent", data=form, headers={"origin": "https://elsewhere"})
    assert refused.status_code == 403


def test_no_address_and_no_recruitment_id_is_with_the_answers(plain, tmp_path):
    client = plain.person(code="recruited-7")
    answered(client, range(6))
    plain.database.close()
    dump = b"".join(path.read_bytes() for path in tmp_path.glob("a.sqlite*"))
    assert b"testclient" not in dump
    assert client.cookies["person"].encode() not in dump  # the hash alone is stored
    assert not any("recruited-7" in str(value) for row in plain.database.rows() for value in row.values())


def test_retention_has_its_day(plain):
    plain.person()
    with plain.database.session() as session:
        (person,) = session.exec(select(Person)).all()
    assert person.expires - person.consented == timedelta(days=365)


def test_texts_are_data_in_all_languages(plain):
    german = plain.browser().get("/", headers={"accept-language": "de-CH,de;q=0.9,en;q=0.8"})
    assert '<html lang="de">' in german.text
    assert "Teilnahme" in german.text
    assert "Taking part" in plain.browser().get("/?language=en", headers={"accept-language": "de"}).text
    assert "Taking part" in plain.browser().get("/?language=<b>", headers={"accept-language": "fr"}).text
    texts = [settings.Settings(languages=(name,)).text(name) for name in ("en", "de")]
    assert texts[0].keys() == texts[1].keys()
    braces = [{n: sorted(re.findall(r"\{\w+\}", str(t))) for n, t in text.items()} for text in texts]
    assert braces[0] == braces[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('titel = "x"', "no key of .*'titel'; did you mean 'title'"),
        ('languages = ["fr"]', "names 'fr', which lacks"),
        ('languages = ["../x"]', "which lacks"),
        ('[texts.en]\nagre = "x"', "no text in texts.en of study.toml 'agre'"),
        ('[texts.en]\nconsent = "x"', "must be a list of texts"),
        ("retention_days = 0", "retention_days .* must be at least 1"),
        ("title = 3", "title .* must be a text"),
        ("a =", "is not a TOML file"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path, text, said):
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        settings.read(tmp_path)


def test_own_texts_and_class_names_never_become_markup(tmp_path):
    evil = "<script>alert(1)</script>"
    study = Study(tmp_path / "study", f"{tmp_path}/a.sqlite", trials=3, maps=1, classes=("a", evil))
    (tmp_path / "study" / "study.toml").write_text(
        f'title = "{evil}"\ncontact = "{evil}"\n[texts.en]\nagree = "{evil}"'
    )
    client = study.person()
    for path in ("/?code=%3Cscript%3E", "/withdraw", "/trials"):
        page = study.browser().get(path).text + client.get(path).text
        assert "<script>" not in page
    assert client.get("/api/trials").headers["content-type"] == "application/json"
    study.database.close()


def test_the_page_of_who_runs_it_needs_the_token(plain):
    person = plain.person(code="recruited-7")
    answered(person, range(2))
    client = plain.browser()
    assert client.get("/admin").status_code == 401
    assert client.post("/admin/expire").status_code == 401
    assert client.post("/admin", data={"token": "wrong"}).status_code == 401
    client.post("/admin", data={"token": TOKEN})
    page = client.get("/admin").text
    assert "recruited-7" in page
    assert "1, of whom 0 have finished" in page
    assert client.post("/admin/expire").status_code == 200
    assert person.get("/admin").status_code == 401


def test_a_server_that_ends_with_the_last_answer_leaves_nobody_in_between(plain, monkeypatch):
    client = plain.person(code="ab-1")
    count = len(client.get("/api/trials").json()["trials"])
    answered(client, range(count - 1))
    with monkeypatch.context() as context:
        context.setattr(plain.database, "recruited", lambda *_, **__: (_ for _ in ()).throw(SystemError("the end")))
        last = client.get("/api/trials").json()["trials"][-1]
        assert client.put(f"/api/answers/{count - 1}", json=given(last)).status_code == 500
    # The answer is there, and with it that it was the last; sent again, it is noted of the recruitment id as well.
    assert client.get("/trials", follow_redirects=True).url.path == "/done"
    assert {row["finished"] for row in plain.database.rows()} == {True}
    assert answered(client, range(count - 1, count))[0]["stored"] is False
    assert [(r.code, r.finished) for r in plain.database.recruitments()] == [("ab-1", True)]
