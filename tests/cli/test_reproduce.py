"""`steadygrad reproduce`: what it refuses, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.commands import done, refused
from steadygrad.papers.yan2018_networks import SCALES


def test_wrong_names_are_refused_before_any_work() -> None:
    assert "there is no paper 'ross2019'" in refused(2, "reproduce", "ross2019", "--data", "digits")
    assert "there is no scale 'huge'" in refused(2, "reproduce", "ross2018", "--data", "digits", "--scale", "huge")
    message = refused(2, "reproduce", "yan2018", "--data", "digits", "--model", "lenett", "--out", "run")
    assert "lenet" in message
    assert not Path("run").exists()


@pytest.mark.slow
def test_json_is_one_line_with_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {**SCALES["smoke"], "part": 0.01, "training": 60, "test": 20, "distances": 4, "suite": 4}
    monkeypatch.setitem(SCALES, "smoke", tiny)
    line = ("reproduce", "yan2018", "--data", "digits", "--model", "mlp", "--scale", "smoke", "--out", "run")
    result = done(*line, "--json")
    assert result.out.count("\n") == 1
    found = json.loads(result.out)
    assert found["paper"]["name"] == "yan2018"
    assert Path(found["report"]).is_file()
    text = done(*line).out
    assert "report: run/index.html" in text
    assert "Deep Defense minus Parseval" in text
    message = refused(2, *line, "--seeds", "0-x")
    assert "seeds are whole numbers such as 0-4" in message
    message = refused(2, *line, "--seed", "1")
    assert "another configuration" in message
