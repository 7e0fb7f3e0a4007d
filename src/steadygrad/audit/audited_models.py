"""The models that an audit takes: by name, tried on the data, and what is written down about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from steadygrad.attacks.engine import check_threat
from steadygrad.attacks.expectation import base_of, draws_of, expected
from steadygrad.classifier import Classifier, check_inputs, check_logits, frozen
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.measuring.runner import borrowed
from steadygrad.threat import Threat


def named_models(models: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module]) -> dict[str, nn.Module]:
    """Models by name; a plain module is called after its class."""
    if isinstance(models, Mapping):
        named = dict(models)
    else:
        listed = [models] if isinstance(models, nn.Module) else list(models)
        names = [str(getattr(m, "name", type(m).__name__)) for m in listed]
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise UsageError(f"models share the names {', '.join(repeated)}: give a mapping of names to models")
        named = dict(zip(names, listed, strict=True))
    if not named:
        raise UsageError("models is empty: give at least one classifier")
    return named


def fitting(model: nn.Module, data: Dataset, threat: Threat, draws: int, device: str | None) -> nn.Module:
    """The model as it is judged, after it was tried on two samples: a randomized one as its mean over draws.

    Raises:
        UsageError: it does not fit the data or the threat, or gives no gradient.
    """
    if isinstance(model, Classifier):
        if model.input_shape is not None and model.input_shape != data.shape:
            raise UsageError(f"{model.name} takes inputs of shape {model.input_shape}, {data.name} has {data.shape}")
        if model.classes is not None and len(model.classes) != len(data.classes):
            raise UsageError(
                f"{model.name} has {len(model.classes)} classes, {data.name} has {len(data.classes)}: "
                "audit it on the data it was trained for"
            )
    x, y = data.batch(slice(0, 2))
    check_inputs(x, y, threat.bounds)
    check_threat(model, threat)
    with borrowed([model], device) as where:
        x, y = x.to(where), y.to(where)
        with frozen(model), torch.enable_grad():
            logits = model(x.requires_grad_())
        check_logits(logits, len(x))
        check_inputs(x.detach(), y, threat.bounds, logits.shape[1])
        if not logits.requires_grad:
            raise UsageError(
                "the model's output carries no gradient to its input (is there a detach, a no_grad or a conversion "
                "to NumPy in its forward?): attacks that follow gradients would find nothing"
            )
        return expected(model, x.detach(), draws)


def about_model(model: nn.Module, weights: str, file: str | None) -> dict[str, Any]:
    """What the summary says of a model besides numbers."""
    return {
        "file": file,
        "architecture": getattr(base_of(model), "architecture", None),
        "draws": draws_of(model),
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights": weights,
    }
