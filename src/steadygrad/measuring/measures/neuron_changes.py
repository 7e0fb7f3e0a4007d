"""How far an attack moves the neurons of a model, layer by layer, and where the pixels lie that move one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad import neurons
from steadygrad.attacks import Attack
from steadygrad.attacks.expectation import network_of
from steadygrad.classifier import frozen, predict
from steadygrad.errors import UsageError
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure, settings_of
from steadygrad.measuring.table import Array, Table
from steadygrad.neurons import Layers
from steadygrad.precision import wide
from steadygrad.threat import Threat

if TYPE_CHECKING:
    from steadygrad.measuring.runner import Tables

_BYTES = 2**28  # of activations that are kept at once


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
        if network_of(model)[0] is not model:
            raise UsageError("its activations are drawn anew in every call, or of several draws of noise")
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
            size = values.abs().flatten(1).mean(1, dtype=wide(values.device)).cpu()
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


@MEASURES.register(
    "moved_boxes",
    summary="the pixels that act on the place where a neuron moves most between an input and an adversarial one",
    reference="Zhang et al. 2021, arXiv 1909.06978",
    cost="four forwards and a backward",
)
@dataclass(frozen=True)
class MovedBoxes(Measure):
    """Writes the `box` (4,) around those pixels: top, left, bottom, right, the ends exclusive.

    The adversarial inputs (n, C, H, W) are given as `input`.

    Args:
        layer, neuron: as `neurons.sensitivity` names and numbers them.
    """

    layer: str
    neuron: int
    titled: ClassVar[str] = "pixels that move neuron {neuron} of {layer}"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        x = batch.x
        found = neurons.movers(models[0], x, batch.of("input"), self.layer, self.neuron, count=len(x))
        box = torch.empty_like(found.boxes)
        box[found.index] = found.boxes  # in the order of the samples again
        return {"box": box}


def most_moved(tables: Tables, model: str, pairs: Table, layer: str, count: int) -> tuple[Array, Array]:
    """The adversarial images (K, C, H, W) that move the most sensitive neuron of a layer most, and their patches.

    The patches (K, C, h, w) are what lies in the boxes of `MovedBoxes`, all as large as the largest.

    Args:
        tables: of the same data.
        pairs: a table of `NeuronChanges` of the first images, with all of their inputs kept.
        count: images at most.
    """
    change = pairs[f"change: {layer}"]  # (N, neurons)
    neuron = int(change.astype(np.float64).mean(0).argmax())
    rows = np.argsort(-change[:, neuron], kind="stable")[:count]
    images = pairs.kept("input").values[rows]
    box = tables.run(MovedBoxes(layer, neuron), model, rows=rows.tolist(), given={"input": images})["box"]
    found = neurons.Movers(torch.arange(len(rows)), torch.from_numpy(change[rows, neuron]), torch.from_numpy(box))
    return images, found.patches(torch.from_numpy(images)).numpy()


def last_maps(model: nn.Module, x: Tensor) -> str:
    """The last layer that puts out maps (N, C, H, W) for images x (N, C, H, W); the first layer where none does."""
    with frozen(model), torch.no_grad(), neurons.recorded(model) as outputs:
        model(x)
    return ([layer for layer, values in outputs.items() if values.ndim == 4] or list(outputs)[:1])[-1]
