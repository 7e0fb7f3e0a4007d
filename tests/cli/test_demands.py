"""`--fail-under` and `--junit`: exit code 3 and a sentence where a number is below what is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cli.commands import AUDIT, TRAIN, call, done, refused
from steadygrad.cli.demands import Demand, demands_of, judge


def _model(clean: float, robust: float, state: str = "holds", name: str = "net") -> dict[str, Any]:
    numbers = {k: {"value": v, "low": v - 0.05, "high": v + 0.05, "count": 100} for k, v in
               (("clean", clean), ("robust", robust))}  # fmt: skip
    text = {"holds": "number holds", "refuted": "number refuted, because noise breaks more"}.get(
        state, "too few samples to judge: 9"
    )
    return {"name": name, **numbers, "verdict": {"state": state, "text": text}}


@pytest.mark.parametrize(
    ("demand", "model", "words"),
    [
        (Demand("robust", 0.4), _model(0.9, 0.4), None),
        (
            Demand("robust", 0.4),
            _model(0.9, 0.39),
            "robust accuracy of net is 39.0 % [34.0, 44.0] on 100 samples",
        ),
        (Demand("robust", 0.4), _model(0.9, 0.352), "it is 4.8 points under 40 %"),
        (Demand("robust.low", 0.4), _model(0.9, 0.44), "the lower end of its interval is 1.0 points under 40 %"),
        (Demand("robust.low", 0.4), _model(0.9, 0.46), None),
        (Demand("robust", 0.4), _model(0.9, 0.8, "refuted"), "number refuted, because noise breaks more"),
        (Demand("robust", 0.4), _model(0.9, 0.8, "too few"), "too few samples to judge: 9"),
        (Demand("clean.low", 0.4), _model(0.9, 0.8, "too few"), "too few samples to judge: 9"),
        (Demand("clean", 0.9), _model(0.9, 0.8, "refuted"), None),
        (Demand("clean", 0.95), _model(0.9, 0.8), "clean accuracy of net is 90.0 % [85.0, 95.0]"),
        (Demand("clean.low", 0.86), _model(0.9, 0.8), "1.0 points under 86 %"),
    ],
)
def test_a_number_is_judged(demand: Demand, model: dict[str, Any], words: str | None) -> None:
    reason = demand.unmet(model)
    if words is None:
        assert reason is None
    else:
        assert reason is not None
        assert words in reason


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["robust=0.4"], [("robust", 0.4)]),
        (["robust=2/5", "clean=0.9"], [("robust", 0.4), ("clean", 0.9)]),
        (["robust=0.4,clean.low=1"], [("robust", 0.4), ("clean.low", 1.0)]),
        (None, []),
    ],
)
def test_demands_are_read(texts: list[str] | None, found: list[tuple[str, float]]) -> None:
    assert [(d.number, d.least) for d in demands_of(texts, None)] == found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--fail-under robust", "'robust' is not key=value (example: robust=0.4)"),
        ("--fail-under robst=0.4", "no number for --fail-under 'robst'; did you mean 'robust'"),
        ("--fail-under Robust=0.4", "did you mean 'robust'"),
        ("--fail-under robust=40", "must be a share within (0, 1], such as 0.4, got 40"),
        ("--fail-under robust=0", "must be a share within (0, 1]"),
        ("--fail-under robust=true", "must be a share within (0, 1]"),
        ("--fail-under robust=much", "must be a share within (0, 1], such as 0.4, got 'much'"),
        ("--fail-under robust=0.4 --fail-under robust=0.5", "--fail-under robust is given twice"),
        ("--junit out.xml", "--junit writes what --fail-under found: add e.g. --fail-under robust=0.4"),
    ],
)
@pytest.mark.parametrize("command", ["audit a", "harden a --recipe pgd"])
def test_a_demand_that_says_nothing_is_refused_before_the_work(command: str, line: str, words: str) -> None:
    assert words in refused(2, *command.split(), *line.split())


def test_the_file_is_junit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [_model(0.9, 0.5, name="a <b> & c"), _model(0.9, 0.3, name="d")]
    demands = demands_of(["robust=0.4", "clean=0.5"], None)
    with pytest.raises(SystemExit) as left:
        judge(demands, models, tmp_path / "out.xml", "steadygrad audit")
    assert left.value.code == 3
    root = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert root.tag == "testsuites"
    (suite,) = root
    assert (suite.tag, suite.get("name"), suite.get("tests"), suite.get("failures")) == (
        "testsuite", "steadygrad audit", "4", "1")  # fmt: skip
    cases = [(case.get("classname"), case.get("name"), len(case)) for case in suite]
    assert cases == [
        ("a <b> & c", "robust accuracy at least 40 %", 0),
        ("a <b> & c", "clean accuracy at least 50 %", 0),
        ("d", "robust accuracy at least 40 %", 1),
        ("d", "clean accuracy at least 50 %", 0),
    ]
    failure = suite[2][0]
    assert failure.tag == "failure"
    assert failure.get("message") == failure.text
    assert str(failure.text) in capsys.readouterr().err


@pytest.mark.slow
def test_an_audit_leaves_with_three(trained: Path) -> None:
    few = call("audit", trained, *AUDIT, "--fail-under", "clean=0.01")
    assert few.code == 3
    assert "too few samples to judge" in few.err
    line = ("audit", trained, *AUDIT[:-4], "--samples", "60", "--checked", "30", "--gallery", "0", "--out", "run")
    assert done(*line, "--fail-under", "clean=0.3", "--junit", "good.xml").code == 0
    assert 'failures="0"' in Path("good.xml").read_text()
    low = call(*line, "--fail-under", "clean=1", "--json")
    found = json.loads(low.out)["models"][0]["clean"]
    assert low.code == 3
    assert f"{100 * (1 - found['value']):.1f} points under 100 %" in low.err


@pytest.mark.slow
def test_what_harden_made_is_judged(trained: Path) -> None:
    small = ("--epochs", "1", "--limit", "60", "--recipe", "plain", "--validation", "0.2", *AUDIT)
    result = call("harden", trained, *small, "--fail-under", "clean=1", "--junit", "out.xml")
    assert result.code == 3
    assert "clean accuracy of after is " in result.err
    assert [case.get("classname") for case in ElementTree.parse("out.xml").iter("testcase")] == ["after"]


@pytest.mark.slow
def test_nothing_but_the_result_is_said_quietly(trained: Path) -> None:
    assert done("audit", trained, *AUDIT, "--quiet").err == ""
    assert done(*TRAIN, "--quiet").err == ""
