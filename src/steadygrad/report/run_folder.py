"""What a run folder holds for the page: the summary, its arrays, and what a hardening changed."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from steadygrad.errors import Failure
from steadygrad.report.png import Arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from steadygrad.audit.schema import HardenSummary, Summary

__all__ = ["ARRAYS", "Run", "arrays_of", "read"]

ARRAYS = "pictures.npz"


@dataclass(frozen=True)
class Run:
    """All that a page is drawn from; `hardened` is None for a plain audit."""

    summary: Summary
    arrays: Arrays = field(default_factory=dict)
    hardened: HardenSummary | None = None


def read(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        UsageError: the folder or its summary does not exist.
        Failure: a file is damaged, incomplete or of another schema.
    """
    from steadygrad.audit.schema import HardenSummary, Summary

    folder = Path(folder)
    summary = Summary.read(folder)
    hardened = HardenSummary.read(folder) if (folder / HardenSummary.FILE).is_file() else None
    return Run(summary, arrays_of(folder, summary), hardened)


def arrays_of(folder: Path, summary: Summary) -> Arrays:
    """Pictures and distributions by the names of docs/summary.md; every one that the summary speaks of is there."""
    path = folder / ARRAYS
    if not path.is_file():
        if summary.gallery is None:
            return {}
        raise Failure(f"there is no {ARRAYS} beside the summary in {folder}; run the audit again")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.nan_to_num(file[name].astype(np.float64)) for name in file.files}
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise Failure(f"cannot read {path}: {error}; run the audit again to replace it") from error
    for name, length in _needed(summary):
        if name not in arrays:
            raise Failure(f"{path}: missing the array {name}; run the audit again")
        if len(arrays[name]) != length:
            raise Failure(
                f"{path}: {name} holds {len(arrays[name])} rows, the summary has {length}; run the audit again"
            )
    for name in arrays:
        clean = _clean(name)
        if clean in arrays and arrays[name].shape != arrays[clean].shape:
            raise Failure(f"{path}: {clean} and {name} differ in shape; run the audit again")
    return arrays


def _clean(name: str) -> str:
    """The array of the clean partners of an array of adversarial inputs; of others the array itself."""
    kind = name.removeprefix("adversarial_")
    return name if kind == name else "clean_explained" if kind.startswith("explained") else f"clean_{kind}"


def _needed(summary: Summary) -> Iterator[tuple[str, int]]:
    """Names and lengths of the arrays that are pictured."""
    if (gallery := summary.gallery) is not None:
        for i, model in enumerate(summary.models):
            if rows := gallery.models.get(model.name):
                maps = (f"map_{state}_{i}_{a}" for a in range(len(gallery.attributions)) for state in _STATES)
                yield from ((name, len(rows)) for name in (f"clean_{i}", f"adversarial_{i}", *maps))
        if gallery.grid is not None:
            yield "grid", len(gallery.grid.classes)
    for i, found in enumerate(summary.explained.models.values() if summary.explained is not None else ()):
        for a, row in enumerate(found.attributions):
            if row.samples:
                yield "clean_explained", len(row.samples)
                for kind in ("adversarial", "map_clean", "map_adversarial", "map_marks"):
                    yield f"{kind}_explained_{i}_{a}", len(row.samples)


_STATES = ("clean", "adversarial")
