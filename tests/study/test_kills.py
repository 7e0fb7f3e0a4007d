"""A server that is killed at any moment: an answer that was acknowledged is there once, whatever the kill was in."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra study")

from steadygrad.study.database import Database

_KILLS, _PERSONS = 20, 6


class Visitor(threading.Thread):
    """Answers all trials, sends again what failed, and notes what was acknowledged, with its own mark."""

    def __init__(self, port: int, pace: float) -> None:
        super().__init__()
        self.port, self.pace = port, pace
        self.acknowledged: dict[int, float] = {}
        self.name_, self.done, self.marks = "", False, 0

    def ask(self, method: str, path: str, body: Any = None, form: Any = None) -> Any:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                headers = {"cookie": f"person={self.name_}", "content-type": "application/json"}
                data = json.dumps(body) if body else urlencode(form) if form else None
                if form:
                    headers["content-type"] = "application/x-www-form-urlencoded"
                connection.request(method, path, data, headers)
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)
                continue
            finally:
                connection.close()
            assert response.status < 400, (response.status, text)
            return response if form else json.loads(text)

    def run(self) -> None:
        response = self.ask("POST", "/consent", form={"version": "1", "language": "en", "agree": "yes"})
        self.name_ = response.getheader("set-cookie").partition("=")[2].partition(";")[0]
        found = self.ask("GET", "/api/trials")
        position = 0
        while position < len(found["trials"]):
            trial = found["trials"][position]
            self.marks += 1
            body = {"stimulus": trial["stimulus"], "seconds": float(self.marks)}
            body |= {"preferred": "left"} if trial["kind"] == "maps" else {"chosen": ["1"], "best": "1"}
            said = self.ask("PUT", f"/api/answers/{position}", body)
            # "stored" is false where the server was killed between keeping an answer and saying so.
            self.acknowledged[position] = float(self.marks)
            assert said["next"] == position + 1
            position = said["next"]
            time.sleep(self.pace)
        self.done = True


@pytest.mark.slow
def test_no_acknowledged_answer_is_lost_or_doubled_by_kills(server):
    draw = np.random.default_rng(0)
    visitors = [Visitor(server.port, 0.02) for _ in range(_PERSONS)]
    for visitor in visitors:
        visitor.start()
    for _ in range(_KILLS):
        time.sleep(float(draw.uniform(0.0, 0.1)))
        server.kill()
        server.start()
    for visitor in visitors:
        visitor.join(60)
    assert all(visitor.done for visitor in visitors)
    database = Database(server.database)
    rows, counted = database.rows(), database.count()
    database.close()
    by_person: dict[str, dict[int, float]] = {}
    for row in rows:
        by_person.setdefault(row["person"], {})[row["position"]] = row["seconds"]
    # Each row has the mark of the one request that was sent for it.
    assert sorted(map(sorted, (found.items() for found in by_person.values()))) == sorted(
        sorted(visitor.acknowledged.items()) for visitor in visitors
    )
    assert len(rows) == 34 * _PERSONS
    # A consent whose answer was lost leaves a person without answers.
    assert counted["finished"] == _PERSONS <= counted["persons"]
