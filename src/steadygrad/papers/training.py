"""Training one network of a paper: resumable, timed, and measured at every checkpoint on the way."""

from __future__ import annotations

import shutil
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
from steadygrad.measuring.measure import Measure
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.store import Store
from steadygrad.measuring.table import Table
from steadygrad.registry import describe
from steadygrad.training import FitSettings, fit

_RECORD = "0"


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
    store: Store,
    place: str,
    *,
    seed: int,
    device: str,
) -> Classifier:
    """Train a network in its folder, or take the one that is there.

    The record, a table in the store, has one row per checkpoint: its `step` and the means of what is watched; it says
    in `about` how long the training took. Where it is damaged, what was watched is lost, and training begins anew.
    """
    known, lost = store.read(place, _RECORD), store.has(place)
    if known is None and lost:
        shutil.rmtree(folder, ignore_errors=True)
    done = (folder / "model.safetensors").exists() and known is not None
    watch = _Watch(training, watched, store, place, known, device)
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
    store: Store
    place: str
    known: Table | None
    device: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    spent: float = 0.0

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        if self.known is not None:
            self.rows = [{name: self.known[name][i] for name in self.known.columns} for i in range(len(self.known))]
            self.spent = float(self.known.about["seconds"])

    def __call__(self, model: Classifier, steps: int) -> None:
        if self.rows and self.rows[-1]["step"] >= steps:
            return
        row: dict[str, Any] = {"step": steps}
        if self.training.watch is not None and self.data is not None:
            found = Runner({"": model}, self.data, device=self.device).run(self.training.watch, "")
            numbers = [n for n in found.columns if n not in ("sample", "label") and found[n].dtype.kind in "biuf"]
            row |= {n: found[n].mean(0) for n in numbers}
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
        columns = {name: np.array([row[name] for row in self.rows]) for name in self.rows[0]}
        self.store.put(self.place, _RECORD, Table(columns, about))
