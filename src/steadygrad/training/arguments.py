"""Arguments of `fit` that do not fit each other are refused before any training."""

from __future__ import annotations

from pathlib import Path

from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.data.dataset import two_classes
from steadygrad.defenses import Defense
from steadygrad.errors import UsageError
from steadygrad.training.settings import FitSettings
from steadygrad.training.tracking import require_tensorboard


def check_arguments(
    classifier: Classifier,
    defense: Defense,
    train: Dataset,
    validation: Dataset | None,
    settings: FitSettings,
    out: str | Path | None,
) -> None:
    """Refuse arguments of `fit` that do not fit each other."""
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
    _check_data(classifier, two_classes(train), "training")
    if validation is not None:
        _check_data(classifier, validation, "validation")
        if (validation.shape, len(validation.classes)) != (train.shape, len(train.classes)):
            raise UsageError(f"the validation data must be like the training data: got {validation} and {train}")
    elif settings.select != "last" or settings.robust_eps is not None:
        raise UsageError("select and robust_eps need validation data: give some, such as train.divide(0.1, seed=0)")
    if settings.tensorboard:
        if out is None:
            raise UsageError("tensorboard=True needs a folder: give out=")
        require_tensorboard()


def _check_data(classifier: Classifier, data: Dataset, which: str) -> None:
    if classifier.input_shape is not None and data.shape != classifier.input_shape:
        raise UsageError(
            f"the {which} samples have shape {data.shape}, and {classifier.name} takes {classifier.input_shape}: "
            "build the model for this shape, or resize the data"
        )
    names = classifier.classes
    if names is not None and len(names) != len(data.classes):
        raise UsageError(
            f"the {which} data have {len(data.classes)} classes, and {classifier.name} has {len(names)}: "
            "build the model with classes=data.classes"
        )
    if names is not None and names != data.classes and set(names) == set(data.classes):
        raise UsageError(
            f"the {which} data and {classifier.name} have the same classes in another order: "
            f"{', '.join(data.classes[:4])}, ... and {', '.join(names[:4])}, ..."
        )
    if classifier.bounds != data.bounds:
        raise UsageError(
            f"{classifier.name} takes inputs within {classifier.bounds}, and the data lie within {data.bounds}: "
            "give the classifier these bounds, with mean and std instead"
        )
