"""`steadygrad demo` with little training: six models, one report, and nothing done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.commands import done, refused, times
from steadygrad.cli import demo
from steadygrad.defenses import Defense, parse


def test_the_defenses_of_the_demo_exist() -> None:
    assert all(isinstance(parse(text), Defense) for text in demo.DEFENSES.values())


@pytest.mark.slow
def test_six_models_are_trained_audited_and_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**demo._FITTING, "epochs": 1, "batch_size": 256}
    monkeypatch.setattr(demo, "_PLAN", {**demo._PLAN, "model": "mlp", "settings": settings})
    line = ("demo", "--samples", "20", "--out", "run")
    result = done(*line, "--json")
    assert result.out.count("\n") == 1
    found = json.loads(result.out)
    assert [model["name"] for model in found["models"]] == list(demo.DEFENSES)
    assert found["data"]["samples"] == 20
    assert Path(found["report"]) == Path("run/audit/report/index.html")
    assert Path(found["report"]).is_file()
    assert len(list(Path("run/models").glob("*/model.safetensors"))) == 6
    assert all(name in result.err for name in demo.DEFENSES)

    before = times(Path("run/audit"))
    again = done(*line)
    assert times(Path("run/audit")) == before
    assert "report: run/audit/report/index.html" in again.out
    assert all(name in again.out for name in ("plain", "distilled"))
    assert max(map(len, again.out.splitlines())) <= 80

    message = refused(2, "demo", "--samples", "10", "--out", "run")
    assert "another configuration (differs in: data, samples)" in message
