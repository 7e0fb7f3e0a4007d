"""A trained model, a folder of its own for each test, and processes that can be killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cli.commands import TRAIN, Nursery, done


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("STEADYGRAD_DATA", raising=False)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a small training; read-only."""
    out = tmp_path_factory.mktemp("trained") / "small"
    done(*TRAIN, "--out", out)
    return out


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """Forty good samples of ten classes for an `.npz` file."""
    drawn = np.random.default_rng(0)
    return {"x": drawn.random((40, 8, 8), dtype=np.float32), "y": np.arange(40) % 10}
