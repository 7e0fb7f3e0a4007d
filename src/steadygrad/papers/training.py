"""Training one network of a paper: resumable, timed, and measured at every checkpoint on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from steadygrad import __version__, models, provenance
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.defenses import Defense
from steadygrad.errors import Failure
from steadygrad.measuring.measure import Measure
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.table import Table
from steadygrad.registry import describe
from steadygrad.training import FitSettings, fit


@dataclass(frozen=True)
class Training:
    """How a network is made.

    Args:
        defense: the training objective.
        settings: of the training.
        start: makes the untrained network from the training data and a seed; or the name of the trained network
            whose weights are trained further.
        data: name of the samples that are trained on.
        seed: is added to that of the run.
        watch: measured at every checkpoint, on the samples named by `watched`; the means are kept.
    """

    defense: Defense
    settings: FitSettings
    start: Callable[[Dataset, int], Classifier] | str
    data: str = "train"
    seed: int = 0
    watch: Measure | None = None
    watched: str = ""

    def plain(self) -> dict[str, Any]:
        """As plain data; settings that do not change the weights are left out."""
        return {"defense": describe(self.defense), "training": self.settings.outcome}


def untrained(architecture: str) -> Callable[[Dataset, int], Classifier]:
    """Makes networks with random weights, for `Training.start`."""
    return lambda data, seed: models.build(architecture, data.shape, data.classes, seed=seed)


def train(
    training: Training,
    start: Classifier,
    data: Dataset,
    watched: Dataset | None,
    folder: Path,
    record: Path,
    *,
    seed: int,
    device: str,
) -> Classifier:
    """Train a network in its folder, or take the one that is there.

    The record is a table with one row per checkpoint: its `step` and the means of what is watched; it says in
    `about` how long the training took.
    """
    done = (folder / "model.safetensors").exists() and record.exists()
    watch = _Watch(training, watched, record, device)
    try:
        result = fit(
            start, training.defense, data, settings=training.settings, out=folder, seed=seed, device=device,
            watch=watch,
        )  # fmt: skip
    finally:
        if not done and folder.is_dir():
            watch.write()
    return result.classifier.to(device)


@dataclass
class _Watch:
    """Writes the record, so that a continued training has the whole of it."""

    training: Training
    data: Dataset | None
    record: Path
    device: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    spent: float = 0.0

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        try:
            known = Table.read(self.record) if self.record.exists() else None
        except Failure:
            known = None
        if known is not None:
            self.rows = [{name: known[name][i] for name in known.columns} for i in range(len(known))]
            self.spent = float(known.about["seconds"])

    def __call__(self, model: Classifier, steps: int) -> None:
        if self.rows and self.rows[-1]["step"] >= steps:
            return
        row: dict[str, Any] = {"step": steps}
        if self.training.watch is not None and self.data is not None:
            found = Runner({"": model}, self.data, device=self.device).run(self.training.watch, "")
            row |= {n: found[n].mean(0) for n in found.columns if n not in ("sample", "label")}
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        if not self.rows:
            return
        about = {
            "measure": {"name": "train"},
            "seconds": round(self.spent + time.monotonic() - self.started, 3),
            "created": provenance.now(),
            "version": __version__,
            "machine": provenance.machine(self.device),
        }
        Table({name: np.array([row[name] for row in self.rows]) for name in self.rows[0]}, about).write(self.record)
