"""The units of inputs: whether a model takes values in the range that the data have."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from steadygrad.classifier import Classifier, classifier_in
from steadygrad.data import Dataset
from steadygrad.errors import UsageError

PIXELS = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0), (-0.5, 0.5))
"""What black and white may be: ranges between which images are scaled."""

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
