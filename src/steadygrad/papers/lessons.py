"""Training one network of a paper: resumable, timed, and scored at every checkpoint on the way."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.defenses import Defense
from steadygrad.files import write_json
from steadygrad.training import FitSettings, fit

__all__ = ["Lesson", "Trained", "learn"]

Score = Callable[[Classifier], dict[str, float]]


@dataclass(frozen=True)
class Lesson:
    """What a network is to learn: from which weights, with which objective and settings."""

    name: str
    start: Classifier
    defense: Defense
    settings: FitSettings


@dataclass(frozen=True)
class Trained:
    """A trained network, its history by epoch, its scores by step, and the seconds spent."""

    classifier: Classifier
    history: list[dict[str, Any]]
    curve: list[dict[str, float]]
    seconds: float


def learn(
    lesson: Lesson,
    train: Dataset,
    validation: Dataset | None,
    folder: Path,
    *,
    seed: int,
    device: str,
    score: Score | None = None,
) -> Trained:
    """Train a network in its folder, or take the one that is there."""
    start = copy.deepcopy(lesson.start)
    start.name = lesson.name
    spent, started = _read(folder / "seconds.json", 0.0), time.monotonic()
    done = (folder / "model.safetensors").exists()
    watch = _Curve(folder, score) if score is not None else None
    try:
        result = fit(
            start, lesson.defense, train, validation, settings=lesson.settings, out=folder, seed=seed, device=device,
            watch=watch,
        )  # fmt: skip
    finally:
        if not done and folder.is_dir():
            spent += time.monotonic() - started
            write_json(folder / "seconds.json", round(spent, 1))
    return Trained(result.classifier.to(device), result.history, watch.rows if watch is not None else [], spent)


class _Curve:
    """The scores by step, kept beside the checkpoints so that a continued run has the whole curve."""

    def __init__(self, folder: Path, score: Score) -> None:
        self.path, self.score = folder / "curve.json", score
        self.rows: list[dict[str, float]] = _read(self.path, [])

    def __call__(self, classifier: Classifier, steps: int) -> None:
        if self.rows and self.rows[-1]["step"] >= steps:
            return
        self.rows.append({"step": steps, **self.score(classifier)})
        write_json(self.path, self.rows)


def _read(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else otherwise
