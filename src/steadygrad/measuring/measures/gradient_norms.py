"""Input gradients: how large those of the loss are, and those of all log-probabilities together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from steadygrad.attacks.losses import cross_entropy
from steadygrad.attributions.pixels import image_array
from steadygrad.classifier import frozen
from steadygrad.derivatives import gradient
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure


@MEASURES.register(
    "gradient_norms",
    summary="l2 norm of the loss's input gradient, for the label and for the class after it",
    reference="Ross and Doshi-Velez 2018, arXiv 1711.09404, figure 5",
    cost="two forwards and backwards",
)
@dataclass(frozen=True)
class GradientNorms(Measure):
    """Writes the columns `label` norm and `next`: of the cross-entropy of the label, and of the class after it."""

    titled: ClassVar[str] = "input gradients"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x, y = models[0], batch.x, batch.y
        with frozen(model, batch.seeds):
            classes = model(x[:1]).shape[1]

            def norm(labels: Tensor) -> Tensor:
                _, slope = gradient(lambda inputs: cross_entropy(model(inputs), labels), x)
                size: Tensor = torch.linalg.vector_norm(slope.flatten(1), dim=1)
                return size

            return {"norm": norm(y), "next_norm": norm((y + 1) % classes)}


@MEASURES.register(
    "summed_gradient",
    summary="input gradient of the sum of all log-probabilities, beside the input",
    reference="Ross and Doshi-Velez 2018, arXiv 1711.09404, figure 7",
    cost="a forward and a backward",
)
@dataclass(frozen=True)
class SummedGradient(Measure):
    """Writes the `input` and its `map`, both (n, C, H, W)."""

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x = models[0], batch.x
        with frozen(model, batch.seeds):
            _, slope = gradient(lambda inputs: model(inputs).log_softmax(1).sum(1), x)
        return {"input": image_array(x), "map": image_array(slope)}
