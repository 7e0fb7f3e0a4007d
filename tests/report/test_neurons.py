"""The section on neurons: every number, figures on one scale, and what was refused."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from report.fake_summary import EPS, NAMES, draw, estimate, full, reread
from steadygrad.audit.schema_maps import Neurons
from steadygrad.errors import Failure
from steadygrad.report.sections import neurons_section as neurons


def _layer(name: str, relative: float | None, most: float | None) -> dict[str, Any]:
    def around(value: float) -> dict[str, float]:
        return {"value": value, "low": 0.9 * value, "high": 1.1 * value, "count": 40}

    shares = [estimate(share, 20) for share in (most or 0.0, 0.3, 0.05)]
    return {
        "name": name,
        "neurons": 1234,
        "held": 124,
        "change": around(0.0625),
        "relative": None if relative is None else around(relative),
        "most": [{"neuron": i, "sensitivity": 0.5} for i in (7, 3, 11)],
        "restored": None if most is None else dict(zip(neurons.CHOICES, shares, strict=True)),
        "gain": None if most is None else {"value": most - 0.3, "low": most - 0.35, "high": most - 0.25, "count": 20},
    }


def looked_at() -> tuple[dict[str, Any], dict[str, Any]]:
    """A full summary with a model of two layers, one of long names nobody of whose samples was turned, one refused."""
    summary, arrays = full(NAMES[:3])
    summary["transfer"] = None
    good = [_layer("act", 0.25, 0.6), _layer("act:2", 0.5, 0.4)]
    dull = [_layer("relu", 0.125, None), _layer("features.dead", None, None)]
    rows = [
        {"refused": None, "fooled": 41, "judged": 20, "layers": good},
        {"refused": None, "fooled": 0, "judged": 0, "layers": dull},
        {"refused": "its activations are drawn anew in every call", "fooled": None, "judged": None, "layers": []},
    ]
    summary["neurons"] = {
        "attack": "PGD, 20 steps",
        "threat": {"norm": "linf", "eps": EPS, "bounds": [0.0, 1.0], "mask": None},
        "samples": 40,
        "share": 0.1,
        "draws": 5,
        "models": dict(zip(NAMES[:3], rows, strict=True)),
    }
    return summary, arrays


def _words(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)).replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture(scope="module")
def section() -> str:
    text = draw(*looked_at())
    return text[text.index('<section id="neurons"') : text.index('<section id="reproduce"')]


def test_every_number_is_there(section: str) -> None:
    words = _words(section)
    for part in (
        "PGD, 20 steps", "first 40 samples", "In each layer 10.0 % of them, rounded up,", "41 of 40 samples turned",
        "20 of them judged",
        "act 7, 3, 11", "1,234 124 held", "0.25 [0.225, 0.275]", "0.0625", "60.0 %", "30.0 %", "5.0 %",
        "+30.0 [+25.0, +35.0]",
        "mean of 5 draws", "not measured: its activations are drawn anew in every call",
    ):  # fmt: skip
        assert part in words, part
    # Where a name is long all are numbered, as on the axis of the figure; nothing stands for a silent layer.
    assert "1. relu" in words
    assert "2. features.dead" in words
    assert "1. act" not in words
    assert section.count('<span class="none">–</span>') == 1 + 2 * 4


def test_figures_share_one_scale_and_say_what_they_show() -> None:
    found = Neurons.model_validate(looked_at()[0]["neurons"])
    drawn = neurons.figures(found)
    assert len(drawn) == 2
    titles = [re.findall(r"<title[^>]*>([^<]*)", figure)[0] for row in drawn for figure in row[1:]]
    assert "act 0.25 to act:2 0.5." in titles[0]
    assert (
        "At best, in layer act: the most sensitive 60.0 %, random ones 30.0 %, the least sensitive 5.0 %." in titles[1]
    )
    assert "relu 0.125." in titles[2]
    assert "No sample was turned, so none could come back." in titles[3]
    ticks = [set(re.findall(r">(0\.\d)</text>", row[1])) for row in drawn]
    assert ticks[0] == ticks[1] != set()
    assert neurons.figures(found) == drawn


def test_no_section_without_the_measurement() -> None:
    summary, arrays = full()
    assert 'id="neurons"' not in draw(summary, arrays)
    assert 'href="#neurons"' in draw(*looked_at())


def _first(found: dict[str, Any]) -> dict[str, Any]:
    return next(iter(found["models"].values()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n.pop("share"), "neurons: missing share"),
        (lambda n: n["models"].popitem(), "neurons.models: expected "),
        (lambda n: _first(n).pop("judged"), "missing judged"),
        (lambda n: _first(n)["layers"][0].pop("gain"), "missing gain"),
        (lambda n: _first(n)["layers"][1]["restored"]["most"].update(low=7), "restored.most.low"),
    ],
)
def test_a_damaged_section_is_refused_by_name(change: Any, message: str, tmp_path: Path) -> None:
    summary, _ = copy.deepcopy(looked_at())
    change(summary["neurons"])
    with pytest.raises(Failure, match=re.escape(message)):
        reread(tmp_path, summary)
