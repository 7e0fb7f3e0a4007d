"""How far an attack moves the neurons of a model, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad import neurons
from steadygrad.attacks import Attack
from steadygrad.attacks.expectation import base_of
from steadygrad.classifier import frozen, predict
from steadygrad.errors import UsageError
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure, settings_of
from steadygrad.measuring.table import Array, Table
from steadygrad.neurons import Layers
from steadygrad.threat import Threat

_BYTES = 2**28
"""Of activations that are kept at once."""


@MEASURES.register(
    "neuron_changes",
    summary="how far each neuron moves between an input and what an attack makes of it",
    reference="Zhang et al. 2021, arXiv 1909.06978, section III",
    cost="the passes of the attack, and four forwards",
)
@dataclass(frozen=True)
class NeuronChanges(Measure):
    """Writes for each layer the `change` of every neuron (neurons,), as in `neurons.changes`, and the mean `size`.

    The size is that of the layer's outputs for the clean input. Beside them stand whether the attack `fooled` the
    model, which a clean mistake does not count as, and the adversarial `input`.

    Args:
        attack: makes the adversarial inputs, whether they fool the model or not.
        threat: with a radius.
        layers: glob patterns of layer names; None for the outputs of the activation modules.
    """

    attack: Attack
    threat: Threat
    layers: Layers = None
    kept: ClassVar[tuple[str, ...]] = ("input",)
    may_refuse: ClassVar[bool] = True
    titled: ClassVar[str] = "neurons under {attack}, {threat}"

    @property
    def draws_as(self) -> Any:
        """The same at every radius."""
        return {"neurons": settings_of(self.attack)}

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x, y = models[0], batch.x, batch.y
        if base_of(model) is not model:
            raise UsageError("its activations are drawn anew in every call")
        changed = self.attack.perturb(model, x, y, self.threat, generator=batch.seeds)
        part = self._part(model, x[:1])
        found: list[dict[str, Tensor]] = []
        for clean, adversarial in zip(torch.split(x, part), torch.split(changed, part)):
            found.append(self._compared(model, clean, adversarial))
            if found[-1].keys() != found[0].keys():
                raise UsageError("its layers are not called equally often for every input")
        right, after = (
            torch.cat([predict(model, inputs)[0] for inputs in torch.split(points, part)]) == y
            for points in (x, changed)
        )
        columns = {name: torch.cat([one[name] for one in found]) for name in found[0]}
        return {"fooled": right & ~after, "input": changed, **columns}

    def _compared(self, model: nn.Module, clean: Tensor, adversarial: Tensor) -> dict[str, Tensor]:
        before, after = self._outputs(model, clean), self._outputs(model, adversarial)
        if not before:
            raise UsageError("no activation module ran before the logits")
        if before.keys() != after.keys():
            raise UsageError("its layers are not called equally often for every input")
        columns: dict[str, Tensor] = {}
        for layer, values in before.items():
            change = neurons.change(values, after[layer]).cpu()
            size = values.abs().flatten(1).mean(1, dtype=torch.float64).cpu()
            if not (torch.isfinite(change).all() and torch.isfinite(size).all()):
                raise UsageError(f"layer {layer!r} puts out values that are not finite")
            columns |= {f"change: {layer}": change, f"size: {layer}": size}
        return columns

    def _part(self, model: nn.Module, x: Tensor) -> int:
        """How many samples may be compared together: three copies of their activations are held."""
        size = 3 * sum(values.nbytes for values in self._outputs(model, x).values())
        return max(1, min(200, _BYTES // max(1, size)))

    def _outputs(self, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        with frozen(model), torch.no_grad(), neurons.recorded(model, self.layers) as outputs:
            model(x)
        return dict(outputs)


def by_layer(table: Table) -> dict[str, dict[str, Array]]:
    """What a table of `NeuronChanges` says of each layer, in their order: `change` and `size` (N,), `sigma` (neurons,).

    The change is the mean over the neurons, sigma the mean over the samples: the sensitivity of each neuron.
    """
    found = {}
    for name in table.columns:
        if name.startswith("change: "):
            change, layer = table[name].astype(np.float64), name.removeprefix("change: ")  # (N, neurons)
            found[layer] = {"change": change.mean(1), "size": table[f"size: {layer}"], "sigma": change.mean(0)}
    return found
