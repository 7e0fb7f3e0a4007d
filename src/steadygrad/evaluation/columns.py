"""Measurements as columns of arrays, kept in cells that outlive a kill."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from steadygrad.errors import Failure
from steadygrad.files import atomic

__all__ = ["Columns", "cell"]

Columns: TypeAlias = dict[str, npt.NDArray[Any]]


def cell(folder: Path | None, name: str, compute: Callable[[], Columns]) -> Columns:
    """The columns under this name in a folder, computed and kept if they are not there yet; no folder keeps nothing."""
    path = None if folder is None else folder / f"{name}.npz"
    if path is not None and path.exists():
        try:
            # Opened here: NumPy leaves a file that is no archive open.
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise Failure(f"cannot read the cell {path}: {error}; delete the file to have it made again") from error
    columns = compute()
    if path is not None:
        with atomic(path) as temporary:
            np.savez_compressed(temporary, **columns)  # type: ignore[arg-type]
    return columns
