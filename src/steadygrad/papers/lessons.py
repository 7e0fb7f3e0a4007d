"""Training one network of a paper: resumable, timed, and scored at every checkpoint on the way."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steadygrad import progress
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
    steps = -(-len(train) // lesson.settings.batch_size)
    watch = _Watch(folder, start, steps, score) if score is not None else None
    try:
        with watch.watching() if watch is not None and not done else contextlib.nullcontext():
            result = fit(
                start, lesson.defense, train, validation, settings=lesson.settings, out=folder, seed=seed, device=device
            )
        if watch is not None:
            watch.look()
    finally:
        if not done and folder.is_dir():
            spent += time.monotonic() - started
            write_json(folder / "seconds.json", round(spent, 1))
    return Trained(result.classifier.to(device), result.history, watch.curve if watch is not None else [], spent)


class _Watch:
    """Scores the checkpoints of a training as they appear in its folder.

    The scores are kept beside them, so that a continued run has the whole curve.
    """

    def __init__(self, folder: Path, classifier: Classifier, steps: int, score: Score) -> None:
        self.folder, self.steps, self.score = folder, steps, score
        self.classifier = copy.deepcopy(classifier)
        self.curve: list[dict[str, float]] = _read(folder / "curve.json", [])
        self._seen: tuple[int, int] | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look for a new checkpoint whenever the training reports progress."""
        shown = progress._opener.get()

        @contextlib.contextmanager
        def opener(description: str, total: int) -> Iterator[progress.Advance]:
            with shown(description, total) as advance:

                def and_look(steps: int = 1, note: str = "") -> None:
                    advance(steps, note)
                    self.look()

                yield and_look

        token = progress._opener.set(opener)
        try:
            yield
        finally:
            progress._opener.reset(token)

    def look(self) -> None:
        """Score the checkpoint if it is a new one."""
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return
        stamp = path.stat()
        if self._seen == (stamp.st_ino, stamp.st_mtime_ns):
            return
        self._seen = (stamp.st_ino, stamp.st_mtime_ns)
        epoch, step, state = _checkpoint(path)
        done = epoch * self.steps + step
        if self.curve and self.curve[-1]["step"] >= done:
            return
        self.classifier.module.load_state_dict(state)
        self.curve.append({"step": done, **self.score(self.classifier)})
        write_json(self.folder / "curve.json", self.curve)


def _checkpoint(path: Path) -> tuple[int, int, dict[str, Any]]:
    """Epochs and further steps that a checkpoint has behind it, and its weights."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        at = json.loads((file.metadata() or {})["progress"])
        state = {k[6:]: file.get_tensor(k).clone() for k in file.keys() if k.startswith("model.")}  # noqa: SIM118
    return at["epoch"], at["step"], state


def _read(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else otherwise
