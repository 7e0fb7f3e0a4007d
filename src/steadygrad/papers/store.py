"""Finished pieces of work as arrays in files: a run that was killed continues where it stopped."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from steadygrad.errors import Failure
from steadygrad.evaluation.robustness import code_key
from steadygrad.files import atomic, key

__all__ = ["Array", "Arrays", "Store"]

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = dict[str, Array]


class Store:
    """Arrays by key, one `.npz` file each; `seconds` says what each title cost when it was computed.

    A key is made of everything the piece depends on; the sources that compute it are added here,
    so that a change in them makes it anew.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self.computed = 0
        self._counted: set[Path] = set()

    def get(self, title: str, compute: Callable[[], Mapping[str, Array]], *parts: Any) -> Arrays:
        """The arrays of this piece, computed and written if they are not there yet."""
        source = inspect.getsourcefile(getattr(compute, "func", compute))  # a partial hides its function
        code = Path(source).read_text(encoding="utf-8") if source else ""
        path = self.folder / f"{key(title, code_key(), code, *parts)}.npz"
        if not path.exists():
            started = time.monotonic()
            found = {k: np.asarray(v) for k, v in compute().items()}
            found["seconds"] = np.asarray(time.monotonic() - started)
            with atomic(path) as temporary:
                np.savez_compressed(temporary, **found)  # type: ignore[arg-type]
            self.computed += 1
        arrays = read(path)
        spent = float(arrays.pop("seconds"))
        if path not in self._counted:  # a piece is asked for as often as others are made from it
            self._counted.add(path)
            self.seconds[title] = self.seconds.get(title, 0.0) + spent
        return arrays


def read(path: Path) -> Arrays:
    """The arrays of an `.npz` file; a damaged one is named."""
    import zipfile

    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return dict(file.items())
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise Failure(f"cannot read {path} ({error}): delete it to have it made again") from error
