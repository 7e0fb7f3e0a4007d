"""What an audit starts from besides settings, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steadygrad.measuring.table import Array, Table


@dataclass(frozen=True)
class Facts:
    """What a summary says besides numbers from tables; plain data.

    Attributes:
        models: by name: file, architecture, draws, parameters, weights.
        data: name, split, samples, classes, shape, fingerprint, and the label of each sample.
        command: that makes the run again.
        corrupted: kinds of corrupted data that are measured on too, such as "fog 3", and how many images of each.
    """

    models: dict[str, dict[str, Any]]
    data: dict[str, Any]
    command: str = ""
    corrupted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        summary: what `summary.json` holds, see docs/summary.md.
        records: one row per model, sample and attack, with the columns of `RECORDS`.
        distances: the smallest change found of each checked sample of each model.
        arrays: of the pictures and distributions, by name.
        folder: where all lies, if anywhere.
    """

    summary: dict[str, Any]
    records: Table
    distances: Table
    arrays: dict[str, Array]
    folder: Path | None = None
