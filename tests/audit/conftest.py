"""Attacks that are registered for one test."""

from __future__ import annotations

import pytest

from audit import victims
from steadygrad.attacks import ATTACKS
from steadygrad.registry import Row


@pytest.fixture
def odd_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The purpose-built attacks of `victims`, registered for one test."""
    for method in victims.ATTACKS:
        row = Row(method.__name__.lower(), method, "", "", "", "attack", 1)
        monkeypatch.setitem(ATTACKS._rows, row.name, row)
