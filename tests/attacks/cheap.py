"""Attacks with few steps, for tests that look at how an attack works and not at how strong it is."""

from __future__ import annotations

import dataclasses
from typing import Any

from steadygrad.attacks import ATTACKS, Attack

# By the name of the setting, so that an attack that is new is cheap, too.
CHEAP: dict[str, int] = {
    "steps": 3,
    "restarts": 2,
    "targets": 2,
    "draws": 3,
    "queries": 6,
    "search_steps": 2,
    "candidates": 2,
    "samples": 2,
}


def cheap(name: str, **settings: Any) -> Attack:
    """The registered attack with few steps, and the given settings where it has them."""
    method = ATTACKS[name].method
    fields = {field.name for field in dataclasses.fields(method) if field.init}
    return method(**{key: value for key, value in {**CHEAP, **settings}.items() if key in fields})
