"""Each part of an audit can be left out, which leaves all other numbers as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import steadygrad as sg
from gates import counted
from steadygrad import report
from steadygrad.attacks import FGSM, PGD
from steadygrad.audit.findings import Audit
from steadygrad.data import Dataset

PARTS: dict[str, Any] = {"checks": False, "distances": False, "curve": False, "maps": False, "mapped": 0, "gallery": 0}
SETTINGS: dict[str, Any] = {"attacks": [PGD(steps=3), FGSM()], "mapped": 5, "gallery": 2}
SHOWN = ("clean", "robust", "verdict", "curve", "distances", "explanations", "attacks", "by_class", "rho2", "further")
"""Entries of a model, of which each part is one."""


@pytest.fixture(scope="module")
def some(digits: Dataset) -> Dataset:
    return digits.draw(40)


@pytest.fixture(scope="module")
def whole(honest: nn.Module, some: Dataset) -> Audit:
    return sg.audit(honest, some, sg.linf(0.05), **SETTINGS)


def _entry(found: Audit) -> dict[str, Any]:
    (entry,) = found.summary["models"]
    return {name: entry[name] for name in SHOWN} | {"gallery": found.summary["gallery"]}


@pytest.mark.parametrize(
    ("part", "gone"),
    [
        ("checks", {"verdict"}),
        ("maps", {"explanations", "gallery"}),
        ("mapped", {"explanations"}),
        ("gallery", {"gallery"}),
        ("distances", {"distances", "curve"}),  # the radii of the curve are fitted to them
        ("curve", {"curve", "distances", "robust", "by_class", "attacks", "verdict"}),  # it counts among the attacks
    ],
)
def test_a_part_is_left_out_and_nothing_else_changes(
    honest: nn.Module, some: Dataset, whole: Audit, tmp_path: Path, part: str, gone: set[str]
) -> None:
    with counted(honest) as passes:
        found = sg.audit(honest, some, sg.linf(0.05), out=tmp_path / "run", **{**SETTINGS, part: PARTS[part]})
    with counted(honest) as all_passes:
        sg.audit(honest, some, sg.linf(0.05), **SETTINGS)
    before, after = _entry(whole), _entry(found)
    assert {name for name in before if before[name] != after[name]} <= gone
    assert not after[{"checks": "verdict", "mapped": "explanations", "maps": "explanations"}.get(part, part)] or (
        part == "checks" and after["verdict"]["state"] == "unchecked" and not after["verdict"]["checks"]
    )
    assert passes["samples"] < all_passes["samples"]
    page = report.write(tmp_path / "run").read_text()
    assert "Robust accuracy" in page
    assert ("Not checked" in page) == ('<section id="checks"' not in page) == (part == "checks")


def test_the_attacks_alone(honest: nn.Module, some: Dataset, tmp_path: Path) -> None:
    with counted(honest) as passes:
        found = sg.audit(honest, some, sg.linf(0.05), out=tmp_path / "run", **{**SETTINGS, **PARTS})
    (entry,) = found.summary["models"]
    assert entry["verdict"]["state"] == "unchecked"
    assert set(entry["eligibility"].values()) == {None}
    assert (entry["curve"], entry["distances"], entry["explanations"]) == (None, None, [])
    assert len(found.records) == 2 * 40
    suite = sum(row["forwards"] for row in entry["attacks"]) * 40
    assert suite < passes["samples"] < suite + 40 * 40
    report.write(tmp_path / "run")


def test_hardening_needs_checked_numbers(honest: nn.Module, some: Dataset) -> None:
    for part in ("checks", "distances"):
        with pytest.raises(sg.UsageError, match="checks=False and distances=False"):
            sg.harden(
                honest, some, sg.defenses.InputGradientPenalty(weight=1), sg.linf(0.1), test=some, **{part: False}
            )


def test_few_samples_are_too_few_without_checks_too(honest: nn.Module, some: Dataset) -> None:
    found = sg.audit(honest, some.take(5), sg.linf(0.05), **{**SETTINGS, **PARTS})
    assert found.summary["models"][0]["verdict"]["state"] == "too few"


def test_radii_of_a_curve_that_is_left_out_are_refused(honest: nn.Module, some: Dataset) -> None:
    with pytest.raises(sg.UsageError, match="grid"):
        sg.audit(honest, some, sg.linf(0.1), curve=False, grid=(0.5, 1.0))
