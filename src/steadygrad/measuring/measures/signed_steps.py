"""Accuracy after one signed gradient step, at many radii at once, on the model itself and on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from steadygrad.attacks.losses import cross_entropy
from steadygrad.classifier import frozen
from steadygrad.derivatives import gradient
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure

if TYPE_CHECKING:
    from steadygrad.measuring.runner import Tables


@MEASURES.register(
    "signed_steps",
    summary="whether models are right after one signed step of the cross-entropy, at many radii",
    reference="Goodfellow, Shlens and Szegedy 2015, arXiv 1412.6572",
    cost="a forward and a backward, and a forward for each radius and model",
    soundness="attack",
)
@dataclass(frozen=True)
class SignedSteps(Measure):
    """Writes `right` (n, M, R): whether each model is right after a step of each radius, made on the first.

    Points count as they are, whether the first model falls for them or not.

    Args:
        radii: in units of the inputs.
        targeted: step towards the class after the label (TGSM) rather than away from the label (FGSM).
        bounds: within which the points stay.
    """

    radii: tuple[float, ...]
    targeted: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)
    draws_as = "signed step"  # which draws nothing: any name will do

    @property
    def title(self) -> str:
        """The attack and its radii."""
        name = "TGSM" if self.targeted else "FGSM"
        return f"{name}, {len(self.radii)} radii from {min(self.radii):.6g} to {max(self.radii):.6g}"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        x, y, source = batch.x, batch.y, models[0]
        with frozen(source, batch.seeds):
            target = (y + 1) % source(x[:1]).shape[1] if self.targeted else None
            _, slope = gradient(lambda inputs: cross_entropy(source(inputs), y, target), x)
        way = slope.sign()
        points = [(x + radius * way).clamp(*self.bounds) for radius in self.radii]
        rows = []
        for model in models:
            with frozen(model, batch.seeds), torch.no_grad():
                rows.append(torch.stack([model(inputs).argmax(1) == y for inputs in points], 1))
        return {"right": torch.stack(rows, 1)}  # (n, M, R)


def halving_radius(tables: Tables, model: str, tolerance: float = 1e-4) -> float:
    """The smallest radius in (0, 1] at which FGSM leaves at most half of the samples right, by bisection.

    1 where no radius does. Each table holds the radii of three halvings.
    """
    low, high = 0.0, 1.0
    while high - low > tolerance:
        grid = np.linspace(low, high, 9)  # multiples of a power of 1/2: exact
        right = tables.run(SignedSteps(tuple(grid[1:-1].tolist())), model)["right"][:, 0].mean(0)  # (7,)
        first, last = 0, 8
        while last - first > 1 and grid[last] - grid[first] > tolerance:
            middle = (first + last) // 2
            first, last = (first, middle) if right[middle - 1] <= 0.5 else (middle, last)
        low, high = float(grid[first]), float(grid[last])
    return high
