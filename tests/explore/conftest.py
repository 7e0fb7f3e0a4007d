"""A run of a tiny audit with two models, opened again."""

from __future__ import annotations

from pathlib import Path

import pytest

import steadygrad as sg
from steadygrad.attacks import FGSM, PGD

pytest.importorskip("fastapi", reason="needs the extra study")

from steadygrad.explore.live import Live
from steadygrad.explore.opened import open_run

NAME = "<b>second</b>"
SETTINGS = {"samples": 20, "checked": 12, "gallery": 2, "mapped": 2, "certify": True, "checks": False, "curve": False}


def models() -> dict[str, sg.Classifier]:
    data = sg.data.load("digits", "test")
    return {name: sg.models.build("mlp", data.shape, data.classes, seed=i) for i, name in enumerate(("first", NAME))}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explored") / "run"
    sg.audit(
        models(), sg.data.load("digits", "test"), sg.linf(0.1), out=folder, attacks=[PGD(steps=5), FGSM()], **SETTINGS
    )
    return folder


@pytest.fixture
def live(run: Path) -> Live:
    return Live(open_run(run, models(), sg.data.load("digits", "test")))
