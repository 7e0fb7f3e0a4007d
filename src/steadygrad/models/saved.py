"""What `Classifier.save` wrote beside the weights, as a file of anybody says it: taken by its types, or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from steadygrad.data.form import Form
from steadygrad.errors import Failure, UsageError
from steadygrad.kinds import ClassNames
from steadygrad.models.architectures import ARCHITECTURES
from steadygrad.values import Count, Finite, Limit, Positive, take
from steadygrad.weights import read_weights

_Bounds = Annotated[
    tuple[Finite, Finite], Limit("the smallest and the largest value of an input", lambda ends: ends[0] < ends[1])
]
_Shape = Annotated[Sequence[Count], Limit("one to five sizes", lambda sizes: 1 <= len(sizes) <= 5)]
_Means = Annotated[Sequence[Finite], Limit("one number or one for each channel", len)]
_Spreads = Annotated[Sequence[Positive], Limit("one number or one for each channel", len)]
_TYPES: dict[str, Any] = {
    "name": str | None,
    "bounds": _Bounds | None,
    "mean": Finite | _Means | None,
    "std": Positive | _Spreads | None,
    "classes": ClassNames | None,
    "input_shape": _Shape | None,
    "preparation": Mapping | None,
    "binary": bool | None,
}


def saved(path: str | Path) -> dict[str, Any]:
    """The settings in a weights file; empty for files of other origin.

    Raises:
        Failure: no settings of a classifier.
        UsageError: a setting that no classifier has.
    """
    settings = read_weights(path).settings
    if not isinstance(settings, dict) or not isinstance(settings.get("architecture"), dict | None):
        raise Failure(f"{path} has damaged metadata: 'steadygrad' must hold the settings of a classifier")
    try:
        for name in _TYPES.keys() & settings.keys():
            take(name, settings[name], _TYPES[name])
        Form.of(None, None, **(settings.get("preparation") or {}))
    except (UsageError, TypeError) as error:
        raise UsageError(
            f"{path}: {error}; what it says beside its weights is not what Classifier.save wrote: save it again"
        ) from error
    return settings


def sketch(name: str, shape: Sequence[int], classes: int, settings: Mapping[str, Any]) -> nn.Module:
    """A network of an architecture that takes no memory, to compare its sizes with those of weights.

    Raises:
        UsageError: a setting that it does not have, or inputs that it does not take.
    """
    row = ARCHITECTURES[name]
    row.check(tuple(shape))
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return row.builder(tuple(shape), classes, **row.complete(dict(settings)))
