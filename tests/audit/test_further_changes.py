"""How far an attack moves maps and neurons before and after, from values that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steadygrad.audit.findings import Audit
from steadygrad.audit.further_changes import further_changes


def _map(values: list[float | None] | None) -> dict[str, Any]:
    if values is None:
        return {"name": "Saliency", "refused": "no second derivative"}
    return {"name": "Saliency", "refused": None, "deviation": {"cosine": {"values": {"attack": values}}}}


def _found(
    maps: tuple[Any, Any] | None, neurons: tuple[Any, Any] | None, refused: tuple[str | None, str | None] = (None, None)
) -> Audit:
    names = ("before", "after")
    summary: dict[str, Any] = {"models": [{"name": name} for name in names], "explained": None, "neurons": None}
    arrays: dict[str, Any] = {}
    if maps is not None:
        summary["explained"] = {"models": {n: {"attributions": [_map(v)]} for n, v in zip(names, maps)}}
    if neurons is not None:
        summary["neurons"] = {"models": {n: {"refused": r} for n, r in zip(names, refused)}}
        arrays = {f"neuron_change_{i}": np.array(v) for i, v in enumerate(neurons) if v is not None}
    none: Any = None
    return Audit(summary, none, none, arrays)


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert further_changes(_found(None, None), "before", "after") == []


def test_the_difference_is_the_median_of_the_differences() -> None:
    first, second = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [0.0, 0.1, 0.1, 0.5, 0.1, 0.2, 0.1]
    maps, neurons = further_changes(_found((first, second), (second, first)), "before", "after")
    assert (maps["name"], maps["before"], maps["after"]) == ("map moved: Saliency", 0.4, 0.1)
    wanted = float(np.median(np.array(second) - first))
    assert maps["difference"]["value"] == pytest.approx(wanted)
    assert (maps["difference"]["gained"], maps["difference"]["lost"], maps["difference"]["count"]) == (1, 6, 7)
    assert (neurons["name"], neurons["difference"]["value"]) == ("neurons moved", pytest.approx(-wanted))


def test_a_map_without_bound_is_beyond_reach() -> None:
    (row,) = further_changes(_found(([None, None, 0.1], [0.1, 0.1, 0.1]), None), "before", "after")
    assert row["before"] is None
    assert row["after"] == 0.1


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (_found((None, [0.1]), None), "no second derivative"),
        (_found(([0.1], None), None), "no second derivative"),
        (_found(None, ([0.1], None), (None, "no layers")), "no layers"),
        (_found(None, (None, None)), "all layers are silent"),
    ],
)
def test_what_could_not_be_measured_says_why(found: Audit, why: str) -> None:
    (row,) = further_changes(found, "before", "after")
    assert row["refused"] == why
    assert row["before"] is row["after"] is row["difference"] is None
