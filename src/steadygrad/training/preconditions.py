"""Arguments of `fit` that do not fit each other are refused before any training."""

from __future__ import annotations

import logging
from pathlib import Path

from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.data.dataset import two_classes
from steadygrad.defenses import Defense
from steadygrad.errors import UsageError
from steadygrad.models.class_names import match_classes
from steadygrad.models.units import within
from steadygrad.threat import Threat, check_radius
from steadygrad.training.settings import FitSettings
from steadygrad.training.tracking import require_tensorboard


def check_arguments(
    classifier: Classifier,
    defense: Defense,
    train: Dataset,
    validation: Dataset | None,
    settings: FitSettings,
    out: str | Path | None,
) -> tuple[Classifier, Dataset, Dataset | None]:
    """Refuse arguments of `fit` that do not fit each other.

    Returns:
        The classifier in the units of the data, and training and validation data with its labels.
    """
    if not isinstance(classifier, Classifier):
        raise UsageError(
            f"fit trains a Classifier, got {type(classifier).__name__}: wrap it in sg.Classifier(module, classes=...)"
        )
    if not isinstance(defense, Defense):
        raise UsageError(f"defense must be a Defense such as sg.defenses.Plain(), got {defense!r}")
    if settings.precision != "float32" and defense.mixed_precision is not True:
        raise UsageError(
            f"precision={settings.precision!r} is not possible with {defense}: {defense.mixed_precision}. "
            "Use precision='float32'"
        )
    if settings.augment != "none" and len(train.shape) != 3:
        raise UsageError(
            f"augment={settings.augment!r} is for images (C, H, W), and the samples have shape {train.shape}: "
            "use 'none'"
        )
    train = _fitting(classifier, two_classes(train), "training")
    classifier, scaled = within(classifier, train, classifier.name)
    if scaled:
        logging.getLogger("steadygrad").warning(scaled)
    for member in (*defense.members, *(defense.teacher.members if defense.teacher is not None else ())):
        check_radius(Threat(getattr(member, "norm", "linf"), getattr(member, "eps", None), classifier.bounds))
    check_radius(Threat(settings.robust_norm, settings.robust_eps, classifier.bounds))
    if validation is not None:
        validation = _fitting(classifier, validation, "validation")
        if any(getattr(validation, what) != getattr(train, what) for what in ("shape", "bounds")) or (
            len(validation.classes) != len(train.classes)
        ):
            raise UsageError(f"the validation data must be like the training data: got {validation} and {train}")
    elif settings.select != "last" or settings.robust_eps is not None:
        raise UsageError("select and robust_eps need validation data: give some, such as train.divide(0.1, seed=0)")
    if settings.tensorboard:
        if out is None:
            raise UsageError("tensorboard=True needs a folder: give out=")
        require_tensorboard()
    return classifier, train, validation


def _fitting(classifier: Classifier, data: Dataset, which: str) -> Dataset:
    """The data with the labels of the classifier, whose classes may be more, or in another order."""
    if classifier.input_shape is not None and data.shape != classifier.input_shape:
        raise UsageError(
            f"the {which} samples have shape {data.shape}, and {classifier.name} takes {classifier.input_shape}: "
            "build the model for this shape, or resize the data"
        )
    names = classifier.classes
    if names is None:
        return data
    match = match_classes(names, len(names), data.classes, who=classifier.name, where=data.name)
    if match.how != "by name":
        return data
    logging.getLogger("steadygrad").warning("%s (%s data)", match.text, which)
    return data.relabeled(match.positions, names)
