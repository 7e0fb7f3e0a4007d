"""The adversarial inputs of an audit as data that load again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from steadygrad.files import atomic
from steadygrad.measuring.store import place_of
from steadygrad.measuring.table import Array, Table

__all__ = ["nearest_inputs", "write_inputs"]


def nearest_inputs(attacked: Mapping[str, Table]) -> Array:
    """For each sample the nearest adversarial input (N, *) that an attack found, or the clean one where none did.

    Args:
        attacked: the table of each attack, with the inputs of all samples.
    """
    tables = list(attacked.values())
    distance = np.stack([np.where(table["success"], table["distance"], np.inf) for table in tables])  # (A, N)
    inputs = np.stack([table.kept("input").values for table in tables])
    # A sample that nothing changed has its clean input in every table.
    found: Array = inputs[distance.argmin(0), np.arange(distance.shape[1])]
    return found


def write_inputs(folder: Path, model: str, attacked: Mapping[str, Table], classes: Sequence[str]) -> Path:
    """Write the nearest inputs of a model as `.npz`, which `steadygrad.data.load(path, "test")` reads."""
    path = folder / f"{place_of(model, '').partition('/')[0]}.npz"
    labels = next(iter(attacked.values()))["label"]
    with atomic(path) as temporary:
        np.savez_compressed(temporary, x_test=nearest_inputs(attacked), y_test=labels, classes=np.array(classes))
    return path
