"""What the commands say of themselves without loading PyTorch: their flags, and what `list` shows.

It stands in `known.json`, which `python docs/make_known.py` makes from plans and registries; a test keeps them equal.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@functools.cache
def _known() -> dict[str, dict[str, list[Row]]]:
    found: dict[str, dict[str, list[Row]]] = json.loads(Path(__file__).with_name("known.json").read_text("utf-8"))
    return found


def flags(plan: str) -> dict[str, Row]:
    """What the flags of a plan, "audit" or "train", are made from, by the name of the field."""
    return {row["field"]: row for row in _known()["flags"][plan]}


def rows(kind: str) -> list[Row]:
    """The rows of `steadygrad list KIND`."""
    return _known()["list"][kind]


def kinds() -> list[str]:
    """What `steadygrad list` can show."""
    return list(_known()["list"])


def completing(known: str | Iterable[str]) -> Callable[[str], list[str]]:
    """For shells: those of the words, or of the names in `steadygrad list KNOWN`, that begin as typed."""

    def complete(incomplete: str) -> list[str]:
        words = [row["name"] for row in rows(known)] if isinstance(known, str) else known
        return [word for word in words if word.startswith(incomplete)]

    return complete
