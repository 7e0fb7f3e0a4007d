"""The adversarial inputs of an audit as data that load again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from steadygrad.files import atomic
from steadygrad.measuring.store import place_of
from steadygrad.measuring.table import Table


def write_inputs(folder: Path, model: str, attacked: Mapping[str, Table], classes: Sequence[str]) -> Path:
    """Write for each sample the nearest input that an attack found, or the clean one where none did, as `.npz`.

    Args:
        attacked: the table of each attack, with the inputs of all samples.

    Returns:
        The path, which `steadygrad.data.load(path, "test")` reads.
    """
    tables = list(attacked.values())
    distance = np.stack([np.where(table["success"], table["distance"], np.inf) for table in tables])  # (A, N)
    inputs = np.stack([table.kept("input").values for table in tables])
    # A sample that nothing changed has its clean input in every table.
    nearest = inputs[distance.argmin(0), np.arange(distance.shape[1])]
    path = folder / f"{place_of(model, '').partition('/')[0]}.npz"
    with atomic(path) as temporary:
        np.savez_compressed(temporary, x_test=nearest, y_test=tables[0]["label"], classes=np.array(classes))
    return path
