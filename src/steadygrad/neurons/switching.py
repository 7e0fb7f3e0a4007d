"""Contexts in which neurons are zero, or have the values that other inputs give them; they leave no trace."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.arguments import Inputs, public
from steadygrad.classifier import frozen
from steadygrad.errors import UsageError
from steadygrad.neurons.recording import at_outputs, neuron_axis, recorded


@public
@contextlib.contextmanager
def switched_off(model: nn.Module, neurons: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """The model with neurons at zero, within the block; attacks and gradients see it so.

    Args:
        neurons: indices (k,) by name of the layer, such as `select` gives; a name means one call of the layer.

    Raises:
        UsageError: no such layer or neuron, or a call that the forward does not make.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> with switched_off(model, {"1": torch.arange(3)}):
    ...     torch.equal(model(torch.rand(1, 2))[0], model[2].bias)
    True
    """

    def zero(name: str, value: Tensor, index: Tensor) -> Tensor:
        return value.index_fill(neuron_axis(value), index, 0.0)

    with _edited(model, neurons, zero):
        yield model


@public
@contextlib.contextmanager
def patched(
    model: nn.Module, benign: Inputs | Mapping[str, Tensor], neurons: Mapping[str, Tensor]
) -> Iterator[nn.Module]:
    """The model with neurons, within the block, at the values that N benign inputs give them.

    It then takes the N adversarial partners of the benign inputs, in their order, and no other batch.

    Args:
        benign: the inputs (N, *), which cost one forward in evaluation mode; or their `recorded` outputs by layer.
        neurons: as for `switched_off`.

    Raises:
        UsageError: as `switched_off`; no outputs of a layer, or another number of inputs.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> x, x_adv = torch.rand(2, 4, 2)
    >>> with patched(model, x, {"1": torch.arange(3)}):
    ...     torch.equal(model(x_adv), model(x))
    True
    """
    if isinstance(benign, Tensor):
        with frozen(model) as called, torch.no_grad(), recorded(called, tuple(neurons)) as outputs:
            called(benign)
    else:
        outputs = dict(benign)
        missing = sorted(set(neurons) - set(outputs))
        if missing:
            raise UsageError(f"the forward makes no call {missing[0]!r}: the benign outputs are of {sorted(outputs)}")

    def hold(name: str, value: Tensor, index: Tensor) -> Tensor:
        kept = outputs[name]
        if len(kept) != len(value):
            raise UsageError(f"the model is patched with the outputs for {len(kept)} inputs, and got {len(value)}")
        axis = neuron_axis(value)
        return value.index_copy(axis, index, kept.index_select(axis, index).to(value.dtype))

    with _edited(model, neurons, hold):
        yield model


@contextlib.contextmanager
def _edited(
    model: nn.Module, neurons: Mapping[str, Tensor], edit: Callable[[str, Tensor, Tensor], Tensor]
) -> Iterator[None]:
    seen: set[str] = set()

    def visit(name: str, value: Tensor) -> Tensor | None:
        if name not in neurons:
            return None
        seen.add(name)
        index, count = neurons[name].to(value.device), value.shape[neuron_axis(value)]
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < count:
            raise UsageError(
                f"neurons of layer {name!r} must be within 0..{count - 1}, got {index.min()}..{index.max()}"
            )
        return edit(name, value, index)

    def end(logits: Any) -> None:
        missing = sorted(set(neurons) - seen)
        if missing:
            raise UsageError(f"the forward makes no call {missing[0]!r} of that layer")

    with at_outputs(model, tuple(neurons), visit, begin=seen.clear, end=end):
        yield
