"""The run folder of a real, tiny audit: a page is written from its tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import steadygrad as sg
from steadygrad.attacks import FGSM


@pytest.fixture(scope="session")
def _audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = sg.data.load("digits", "test").take(20)
    model, out = sg.models.build("mlp", data.shape, data.classes), tmp_path_factory.mktemp("audited") / "run"
    sg.audit({"mlp": model}, data, sg.linf(0.1), out=out, attacks=[FGSM()], gallery=2, checked=4, mapped=4)
    return out


@pytest.fixture
def audited(_audited: Path, tmp_path: Path) -> Path:
    """A copy of the run folder, to write to."""
    return Path(shutil.copytree(_audited, tmp_path / "run"))
