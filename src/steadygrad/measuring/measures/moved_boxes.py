"""Where in an image the pixels lie that move a neuron."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad import neurons
from steadygrad.classifier import frozen
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.measuring.table import Array, Table

if TYPE_CHECKING:
    from steadygrad.measuring.runner import Tables


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
