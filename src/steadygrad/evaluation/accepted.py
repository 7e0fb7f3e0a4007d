"""What an audit accepts: models by name, data that fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from steadygrad.attacks.engine import check_threat
from steadygrad.classifier import Classifier, check_inputs, check_logits, frozen
from steadygrad.errors import UsageError
from steadygrad.evaluation.robustness import Bench
from steadygrad.threat import Threat

__all__ = ["check_fits", "named_models"]


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


def check_fits(model: nn.Module, bench: Bench, threat: Threat) -> None:
    """Refuse a model that cannot be audited on the data of a bench within a threat."""
    data = bench.data
    x, y, _ = next(bench.batches(0, 2))
    if isinstance(model, Classifier):
        if model.input_shape is not None and model.input_shape != data.shape:
            raise UsageError(f"{model.name} takes inputs of shape {model.input_shape}, {data.name} has {data.shape}")
        if model.classes is not None and len(model.classes) != len(data.classes):
            raise UsageError(
                f"{model.name} has {len(model.classes)} classes, {data.name} has {len(data.classes)}: "
                "audit it on the data it was trained for"
            )
    check_inputs(x, y, threat.bounds)
    check_threat(model, threat)
    with frozen(model), torch.enable_grad():
        logits = model(x.requires_grad_())
    check_logits(logits, len(x))
    check_inputs(x.detach(), bench.data.labels[: len(x)].to(x.device), threat.bounds, logits.shape[1])
    if not logits.requires_grad:
        raise UsageError(
            "the model's output carries no gradient to its input (is there a detach, a no_grad or a conversion to "
            "NumPy in its forward?): attacks that follow gradients would find nothing"
        )
