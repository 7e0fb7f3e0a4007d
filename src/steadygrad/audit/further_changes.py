"""What a hardening changes beside predictions: how far an attack moves the maps and the neurons."""

from __future__ import annotations

from typing import Any

import numpy as np

from steadygrad.audit.findings import Audit
from steadygrad.measuring.paired import median_shift
from steadygrad.measuring.table import Array


def further_changes(found: Audit, before: str, after: str) -> list[dict[str, Any]]:
    """For each attribution, and for the neurons, how far the attack moves them before and after, by name of the model.

    Maps by the cosine distance of the farthest one found, neurons by the mean over layers of their change relative to
    their output; medians over samples, and the median of the samples' own differences.
    """
    rows = []
    if found.summary["explained"] is not None:
        models = found.summary["explained"]["models"]
        for first, second in zip(*(models[name]["attributions"] for name in (before, after)), strict=True):
            refused = first["refused"] or second["refused"]
            values = None if refused else (_moved(first), _moved(second))
            rows.append(_row(f"map moved: {first['name']}", refused, values))
    if found.summary["neurons"] is not None:
        models = found.summary["neurons"]["models"]
        places = [row["name"] for row in found.summary["models"]]
        arrays = [found.arrays.get(f"neuron_change_{places.index(name)}") for name in (before, after)]
        refused = models[before]["refused"] or models[after]["refused"]
        first, second = arrays
        silent = first is None or second is None
        rows.append(
            _row("neurons moved", refused or ("all layers are silent" if silent else None),
                 None if first is None or second is None or refused else (first, second))
        )  # fmt: skip
    return rows


def _moved(row: dict[str, Any]) -> Array:
    values = row["deviation"]["cosine"]["values"]["attack"]
    return np.array([np.inf if value is None else value for value in values])


def _row(name: str, refused: str | None, values: tuple[Array, Array] | None) -> dict[str, Any]:
    if values is None:
        return {"name": name, "refused": refused, "before": None, "after": None, "difference": None}
    medians = [float(np.median(side)) for side in values]
    sides = {side: m if np.isfinite(m) else None for side, m in zip(("before", "after"), medians, strict=True)}
    return {"name": name, "refused": None, **sides, "difference": median_shift(*values).plain()}
