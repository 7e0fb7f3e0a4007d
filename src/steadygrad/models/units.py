"""The units of inputs: whether a model takes values in the range that the data have."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from steadygrad.classifier import Classifier, classifier_in
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.registry import numbers

PIXELS = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0), (-0.5, 0.5))
"""What black and white may be: ranges between which images are scaled."""

PRESETS = {"imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
"""Means and standard deviations of the channels by name, of pixels within [0, 1]."""

Model = TypeVar("Model", bound=nn.Module)


def within(model: Model, data: Dataset, name: str) -> tuple[Model | Classifier, str]:
    """The model for inputs in the units of the data, and what is to be told of that; a plain module takes them.

    Images whose bounds, and those of the classifier, are black and white are scaled from one to the other. Of other
    data the bounds say how far a change may go, and not what the values mean, so that they must be equal.

    Raises:
        UsageError: other bounds.
    """
    known = classifier_in(model)
    if known is None and data.bounds != (0, 1):
        return Classifier(model, bounds=data.bounds, name=name), ""
    if known is None or known.bounds == data.bounds:
        return model, ""
    if len(data.shape) == 3 and {known.bounds, data.bounds} <= set(PIXELS):
        # A wrapper around a classifier is taken as it is.
        whole = model if isinstance(model, Classifier) else Classifier(model, bounds=known.bounds)
        ends = [f"[{low:g}, {high:g}]" for low, high in (known.bounds, data.bounds)]
        return whole.rescaled(
            data.bounds
        ), f"{name} takes pixels within {ends[0]}, those of {data.name}, within {ends[1]}, are scaled for it"
    raise UsageError(
        f"{name} takes inputs within {known.bounds}, and {data.name} lies within {data.bounds}: give the one that is "
        "wrong the right bounds (bounds=(low, high), --bounds low,high), with mean and std in their units"
    )


def normalized(classifier: Classifier, mean: Any, std: Any, name: str) -> Classifier:
    """The classifier with a mean and std that a caller gives: numbers, texts such as "0.5,0.4,0.4", or a preset.

    Raises:
        UsageError: no numbers, or a classifier that says others itself.

    >>> normalized(Classifier(nn.Flatten()), "imagenet", None, "net").std.shape
    torch.Size([3])
    """
    if mean is None and std is None:
        return classifier
    if std is None and isinstance(mean, str) and mean in PRESETS:
        std = mean
    found = {"mean": _values(mean, "mean", classifier, 0.0), "std": _values(std, "std", classifier, 1.0)}
    mine = {key: getattr(classifier, key) for key in found}
    if any(bool((mine[key] != usual).any()) for key, usual in (("mean", 0.0), ("std", 1.0))):
        if all(_equal(mine[key], found[key]) for key in found):
            return classifier
        raise UsageError(
            f"{name} says its own mean {mine['mean'].tolist()} and std {mine['std'].tolist()}: leave out mean and std"
        )
    if type(classifier) is not Classifier:
        raise UsageError(f"{name} is a classifier of its own kind: leave out mean and std, and let it normalize")
    return Classifier(classifier.module, **{**classifier.settings, **found})


def _equal(mine: Tensor, given: Any) -> bool:
    given = torch.as_tensor(given, dtype=mine.dtype, device=mine.device)
    fits = given.ndim == 0 or mine.ndim == 0 or given.shape == mine.shape
    return fits and bool(torch.isclose(mine, given, rtol=1e-4).all())


def _values(value: Any, which: str, classifier: Classifier, usual: float) -> Any:
    if value is None:
        return usual
    found = numbers(value)
    if isinstance(found, str):
        if found not in PRESETS:
            raise UsageError(f"{which} must be numbers such as 0.5 or 0.485,0.456,0.406, or imagenet, got {value!r}")
        low, high = classifier.bounds
        return [v * (high - low) + (low if which == "mean" else 0.0) for v in PRESETS[found][which == "std"]]
    found = list(found)
    return found[0] if len(found) == 1 else found
