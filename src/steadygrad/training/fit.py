"""`fit`: train any classifier with any defense, on any number of devices; a stopped run continues exactly."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steadygrad import files, registry
from steadygrad.arguments import public
from steadygrad.classifier import Classifier
from steadygrad.data.python_data import Samples
from steadygrad.defenses import Defense
from steadygrad.measuring.code_keys import model_code
from steadygrad.run_folders import run_folder
from steadygrad.stopping import between_steps
from steadygrad.training import checkpoints
from steadygrad.training.loop import Loop, Watch
from steadygrad.training.preconditions import check_arguments
from steadygrad.training.processes import Processes
from steadygrad.training.settings import FitSettings

_DEFAULTS = FitSettings()


@dataclass(frozen=True)
class FitResult:
    """A trained classifier, in evaluation mode.

    `history` has one row per epoch; `best_epoch` (from 1) is the one whose weights were chosen.
    """

    classifier: Classifier
    history: list[dict[str, Any]]
    best_epoch: int
    epochs_done: int


@public
def fit(
    classifier: Classifier,
    defense: Defense,
    train: Samples,
    validation: Samples | None = None,
    *,
    settings: FitSettings = _DEFAULTS,
    out: str | Path | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    watch: Watch | None = None,
) -> FitResult:
    """Train a copy of the classifier with the defense; the one that is given stays as it is.

    Args:
        classifier: starts from the weights it has.
        defense: the training objective; where it needs a teacher, that is trained first.
        train: the data to fit.
        validation: its accuracy is measured after every epoch, and chooses the weights if `settings.select` says so.
        settings: see `FitSettings`.
        out: folder for checkpoints, `history.csv` and `model.safetensors`. A run that was stopped,
            however roughly, continues there, to the same weights; a finished one returns at once.
        seed: of the order of the data, augmentation, attacks and dropout. The global random state
            is left as it is.
        device: "cpu", "cuda", "cuda:1", "mps". Under `accelerate launch` or `torchrun` the batches
            are shared by all processes.
        watch: `watch(classifier, steps)` is called by the main process at every checkpoint, and where a run is
            continued, with a copy of the model in evaluation mode.

    Raises:
        UsageError: data and model do not fit each other, no such device, a precision that the
            defense does not allow, or `out` belongs to another configuration.
        Failure: the loss is no longer finite; the last checkpoint stays.
    """
    classifier, train, validation = check_arguments(classifier, defense, train, validation, settings, out)
    processes = Processes(device)
    folder, run = Path(out) if out is not None else None, ""
    if folder is not None:
        # All on which the trained weights depend; an error names the keys that differ.
        config = {
            "classifier": classifier.settings,
            "starting weights": checkpoints.fingerprint(classifier.module),
            "model code": model_code(classifier.module),
            "defense": registry.describe(defense),
            "settings": settings.outcome,
            "training data": train.fingerprint,
            "validation data": validation.fingerprint if validation is not None else None,
            "seed": seed,
        }
        # As in TOML, 1 and 1.0 are the same setting.
        run = files.key(json.loads(json.dumps(config, default=str), parse_int=float))
    with contextlib.ExitStack() as stack:
        if folder is not None:
            if processes.main:
                stack.enter_context(run_folder(folder, config))
            processes.wait()
        teacher: Classifier | None = None
        if defense.teacher is not None:
            inner = folder / "teacher" if folder is not None else None
            teacher = fit(
                classifier, defense.teacher, train, validation, settings=settings, out=inner, seed=seed, device=device
            ).classifier
        loop = Loop(classifier, defense, train, validation, settings, processes, teacher, seed, folder, run, watch)
        # Without a folder there is nothing to write; several processes would stop at different steps, and keep the
        # checkpoint of their last epoch.
        alone = folder is not None and processes.size == 1
        with between_steps() if alone else contextlib.nullcontext(loop.stop) as loop.stop:
            loop.run()
        progress = loop.progress
        return FitResult(loop.result(), progress.history, progress.best_epoch or progress.epoch, progress.epoch)
