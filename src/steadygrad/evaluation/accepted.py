"""What an audit accepts: models by name, a suite of attacks, data that fit both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from steadygrad.attacks import ATTACKS, FGSM, PGD, Attack, RandomNoise, Standard
from steadygrad.attacks.engine import check_threat
from steadygrad.classifier import Classifier, check_inputs, check_logits, frozen
from steadygrad.errors import UsageError, unknown_name
from steadygrad.evaluation.robustness import Bench, label_of
from steadygrad.threat import Threat

__all__ = ["SUITES", "check_fits", "named_models", "suite_of"]

_LEAD = PGD(steps=30, restarts=5, loss="rivals")
SUITES: dict[str, tuple[Attack, ...]] = {
    "fast": (_LEAD, PGD(restarts=3), PGD(loss="ce"), FGSM(), RandomNoise()),
    "standard": (_LEAD, Standard(), FGSM(), RandomNoise()),
}
"""Attacks by suite name; the first one leads: it draws curves and pictures and is what the checks test."""


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


def suite_of(attacks: Attack | Sequence[Attack] | str, threat: Threat) -> tuple[Attack, ...]:
    """The attacks of a suite, all different and fit for the threat."""
    if isinstance(attacks, str) and attacks not in SUITES:
        raise unknown_name("suite", attacks, SUITES)
    listed = SUITES[attacks] if isinstance(attacks, str) else attacks
    suite = (listed,) if isinstance(listed, Attack) else tuple(listed)
    labels = [label_of(a) for a in suite]
    if not labels or len(set(labels)) < len(labels):
        raise UsageError(f"attacks must be at least one and all different, got {labels}")
    for attack in suite:
        if threat.norm not in attack.norms:
            fitting = ", ".join(row.name for row in ATTACKS if threat.norm in row.norms)
            raise UsageError(f"{label_of(attack)} does not work for {threat.norm}; attacks that do: {fitting}")
    return suite


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
