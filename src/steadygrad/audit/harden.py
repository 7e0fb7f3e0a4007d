"""harden(): fine-tune, audit before and after on the same images, compare."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from steadygrad.arguments import public
from steadygrad.audit.audit import audit
from steadygrad.audit.audited_models import agreeing
from steadygrad.audit.comparison import Comparison, Side, compare
from steadygrad.audit.findings import Audit
from steadygrad.audit.further_changes import further_changes
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.data.lazy import digests
from steadygrad.data.python_data import Samples
from steadygrad.defenses import Defense
from steadygrad.errors import UsageError
from steadygrad.kinds import Device
from steadygrad.registry import describe
from steadygrad.run_folders import claimed
from steadygrad.threat import Threat
from steadygrad.training import FitSettings, fit
from steadygrad.turns import TURN
from steadygrad.values import Seed

SCHEMA = 1
BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Hardening:
    """The hardened classifier, what both audits found, and the verdict on the difference.

    `summary` is what `harden.json` holds.
    """

    classifier: Classifier
    comparison: Comparison
    audit: Audit
    summary: dict[str, Any]
    folder: Path | None


def usual_settings(threat: Threat, **changed: Any) -> FitSettings:
    """The settings of a fine-tuning that keeps the epoch most robust to the threat on validation data.

    >>> from steadygrad.threat import linf
    >>> usual_settings(linf(0.1), epochs=3).select
    'robust'
    """
    return FitSettings(**{**usual_values(threat), **changed})


def usual_values(threat: Threat) -> dict[str, Any]:
    """The settings of `usual_settings` that are not the defaults of training, as plain values."""
    if not isinstance(threat.eps, float | int) or threat.eps <= 0:
        raise UsageError("hardening is judged under a threat with one positive radius, e.g. sg.linf(8 / 255)")
    radius = {"robust_eps": float(threat.eps), "robust_norm": threat.norm}
    return {"epochs": 10, "lr": 5e-4, "schedule": "cosine", "select": "robust", **radius}


@public
def harden(
    model: nn.Module,
    data: Samples,
    defense: Defense,
    threat: Threat,
    *,
    test: Samples,
    validation: Samples | float = 0.1,
    settings: FitSettings | None = None,
    out: str | Path | None = None,
    seed: Seed = 0,
    device: Device = "cpu",
    files: str | None = None,
    command: str = "",
    **audit_settings: Any,
) -> Hardening:
    """Fine-tune a copy of a trained model with a defense and compare it with what it was.

    Both models are audited on the same test images. The verdict says "better" only where the 95 %
    interval of the paired difference in robust accuracy lies above zero and no check failed on
    either side. It is about these images and this one training: other seeds may differ.

    Args:
        model: trained; a plain module takes inputs in the range of the data, to logits.
        data: to train on; `validation` is a share of it, or other data, and chooses the epoch.
        defense: the training objective.
        threat: what both are audited under, with one radius in units of the data.
        test: to audit on; it may share no sample, id and pixels, with the data that are trained on, nor the
            pixels of more than half of its samples.
        settings: of the training, `usual_settings(threat)` by default.
        out: folder of the model, both audits and `harden.json`; a killed run continues there.
        seed, device: of training and audits.
        files: where the model came from, written down; `command` likewise.
        audit_settings: of the audits, as in `audit`; smallest changes are looked for on `checked` samples too.

    Raises:
        UsageError: as `fit` and `audit`; test samples among those that are trained on.

    >>> import steadygrad as sg
    >>> train, test = sg.data.load("digits").take(60), sg.data.load("digits", "test").take(20)
    >>> model = sg.models.build("mlp", train.shape, train.classes)
    >>> settings = sg.FitSettings(epochs=1)
    >>> found = harden(model, train, sg.defenses.Plain(), sg.linf(0.1), test=test, settings=settings, checked=10)
    >>> found.comparison.robust.count
    20
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("harden audits in one process: train with several (steadygrad train), then audit both models")
    from steadygrad.audit.audit_plan import AuditPlan
    from steadygrad.audit.schema import HardenSummary

    # What the audit would refuse is refused before the training.
    plan = AuditPlan.of(threat, audit_settings)
    plan.engine.check()
    if plan.engine.joined:
        raise UsageError("harden trains in one process: give the engine local (with workers) or ray for its audits")
    if not plan.checks or not plan.distances:
        raise UsageError(
            "harden calls a model better or worse by checked numbers and smallest changes: leave out checks=False and "
            "distances=False"
        )
    classifier = _classifier(model, data, threat)
    parts = data.divide(validation, seed) if isinstance(validation, float | int) else (data, validation)
    images = test.draw(plan.samples, seed)
    if (images.shape, images.classes) != (data.shape, data.classes):
        raise UsageError(f"the test data must be like the training data, in shape and classes: got {images} and {data}")
    _check_unseen(images, parts)
    agreeing(classifier, images, threat, device)
    settings = settings or usual_settings(threat)
    with contextlib.nullcontext() if out is None else claimed(out) as folder:
        below = folder / "training" if folder is not None else None
        trained = fit(classifier, defense, *parts, settings=settings, out=below, seed=seed, device=device)
        named: dict[str, Classifier] = {BEFORE: classifier, AFTER: trained.classifier}
        if folder is not None:
            trained.classifier.save(folder / "model.safetensors")
        sources = {
            BEFORE: files or classifier.name,
            AFTER: str(folder / "model.safetensors") if folder else "in memory",
        }
    how: dict[str, Any] = {"seed": seed, "device": device, **audit_settings}
    found = audit(named, test, threat, out=folder, files=sources, command=command, **how)
    comparison = compare(*(_side(found, name) for name in named))
    about = found.summary
    summary = HardenSummary.model_validate(
        {
            "schema": SCHEMA,
            **{name: about[name] for name in ("version", "created", "machine", "command", "threat", "data")},
            "model": {"name": classifier.name, "file": sources[BEFORE], "hardened": sources[AFTER]},
            "training": {
                "defense": describe(defense),
                "settings": settings.outcome,
                "seed": seed,
                "samples": len(parts[0]),
                "validation_samples": len(parts[1]),
                "epochs": trained.epochs_done,
                "chosen_epoch": trained.best_epoch,
                "history": trained.history,
            },
            **comparison.plain(),
            "further": further_changes(found, BEFORE, AFTER),
        }
    )
    if folder is not None:
        summary.write(folder / HardenSummary.FILE)
    return Hardening(trained.classifier, comparison, found, summary.plain(), folder)


def _classifier(model: nn.Module, data: Dataset, threat: Threat) -> Classifier:
    """A copy to compare with, in evaluation mode: the audit moves models between devices."""
    with TURN:  # it may be frozen by another thread
        module = copy.deepcopy(model).eval()
    if isinstance(module, Classifier):
        return module
    return Classifier(module, bounds=threat.bounds, classes=data.classes, input_shape=data.shape).eval()


def _check_unseen(test: Dataset, parts: Sequence[Dataset]) -> None:
    """Refuse test samples that are trained on, or that choose the epoch.

    That is samples with the same id and pixels; and a test set of which more than half have the pixels of
    samples with other ids. Fewer may be the doubles that many data sets have.
    """
    way_out = "give test data that the training does not see, such as the split 'test'"
    rows = {name: i for i, name in enumerate(test.ids)}
    tested, *trained = digests([test.images, *(part.images for part in parts)])
    for part, found in zip(parts, trained):
        shared = [(i, rows[name]) for i, name in enumerate(part.ids) if name in rows]
        same = [row for i, row in shared if found[i] == tested[row]]
        if same:
            raise UsageError(
                f"{len(same)} of {len(test)} test samples are among those that are trained on, the first is "
                f"{test.ids[same[0]]!r}: {way_out}"
            )
    seen = {digest for found in trained for digest in found}
    doubles = sum(digest in seen for digest in tested)
    if 2 * doubles > len(test):
        raise UsageError(
            f"{doubles} of {len(test)} test samples have the content of samples that are trained on, under other ids: "
            f"{way_out}"
        )


def _side(found: Audit, name: str) -> Side:
    """The rows of one model, sample by sample, from the tables of the audit."""
    frame = found.records.where(model=name).frame
    samples = frame.drop_duplicates("sample")
    fell = frame.groupby("sample")["success"].any()
    distances = found.distances.where(model=name)
    entry = next(row for row in found.summary["models"] if row["name"] == name)
    return Side(
        samples=samples["sample"].tolist(),
        right=(samples["clean_prediction"] == samples["label"]).tolist(),
        stood=(~fell[samples["sample"]]).tolist(),
        distance=distances["distance"].tolist(),
        state=entry["verdict"]["state"],
        text=str(entry["verdict"]["text"]),
    )
