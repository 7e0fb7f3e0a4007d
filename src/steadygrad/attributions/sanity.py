"""Whether a map depends on what the model has learned: it should change when the weights are randomized."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad.arguments import Classes, Inputs, arithmetic
from steadygrad.attributions import similarity
from steadygrad.attributions.attribution import Attribution
from steadygrad.calling import Called, eagerly, unwrap
from steadygrad.classifier import frozen, predict
from steadygrad.errors import UsageError
from steadygrad.models.architectures import seeded
from steadygrad.randomness import seed_of


@dataclass(frozen=True)
class Randomization:
    """Similarity (L, N) to the map of the trained model after each of the `layers` is randomized, from the output down.

    A map whose similarity does not fall explains the input, not the model.
    """

    layers: tuple[str, ...]
    similarity: Tensor


@arithmetic
def parameter_randomization(
    attribution: Attribution,
    model: nn.Module,
    x: Inputs,
    target: Classes | None = None,
    *,
    measure: Callable[[Tensor, Tensor], Tensor] = similarity.spearman,
    seed: int = 0,
) -> Randomization:
    """Randomize the layers of a copy from the output down (cascading) and compare the maps.

    A layer gets the values it would have before training (`reset_parameters`); where it has no such
    method its weights are shuffled. Costs one map per layer and sample; leaves no trace.

    Args:
        target: classes (N,) to explain; None for those that the trained model predicts.
        measure: similarity (N,) of two batches of maps.
        seed: of the random weights; those of a layer do not depend on the other layers.

    Raises:
        UsageError: a model without layers with weights, or one that cannot be copied.

    Source: Adebayo et al. 2018, arXiv:1810.03292.

    >>> from steadygrad.attributions import Saliency
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    >>> parameter_randomization(Saliency(), model, torch.rand(5, 1, 2, 2)).layers
    ('3', '1')
    """
    model = unwrap(model.model if isinstance(model, Called) else model)
    target = predict(model, x)[0] if target is None else target
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UsageError("a TorchScript model has no layers that can be randomized: take the module it was made of")
    try:
        changed = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        name = type(model).__name__
        raise UsageError(f"{name} cannot be copied, so its layers cannot be randomized: {error}") from error
    names = _layers(changed, x[:1])
    if not names:
        raise UsageError(f"{type(model).__name__} has no layer with weights to randomize")
    trained = attribution(model, x, target)
    values = []
    for name in names:
        for part in (name, *_beneath(changed, name, names)):
            _randomize(changed.get_submodule(part), seed_of("randomization", seed, part))
        values.append(measure(trained, attribution(changed, x, target)))
    return Randomization(tuple(names), torch.stack(values))


def _layers(model: nn.Module, x: Tensor) -> list[str]:
    """Modules with weights of their own, the one that is called last first."""
    called: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda _, __, n=name: called.append(n)) for name, module in _weighted(model)
    ]
    try:
        with frozen(model) as model, eagerly(), torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(reversed(called)))


def _beneath(model: nn.Module, name: str, called: list[str]) -> list[str]:
    """Modules with weights inside of another, which uses them without calling them, as attention does."""
    prefix = f"{name}." if name else ""
    inner = [inner for inner, _ in _weighted(model) if inner != name and inner.startswith(prefix)]
    return [name for name in inner if name not in called]


def _weighted(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules with weights of their own, by name."""
    return ((name, m) for name, m in model.named_modules() if next(m.parameters(recurse=False), None) is not None)


def _randomize(layer: nn.Module, seed: int) -> None:
    # On the CPU, so that the values are those of the seed on every device.
    fresh = copy.deepcopy(layer).cpu()
    reset = getattr(fresh, "reset_parameters", None)
    with seeded(seed), torch.no_grad():
        if callable(reset):
            reset()
        else:
            for weights in fresh.parameters(recurse=False):
                weights.copy_(weights.flatten()[torch.randperm(weights.numel())].view_as(weights))
    layer.load_state_dict(fresh.state_dict())
