"""Accuracy against eps from one search: the smallest radius of a grid at which each sample falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad.attacks import Attack
from steadygrad.classifier import predict
from steadygrad.errors import UsageError
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.measuring.table import Array
from steadygrad.precision import wide
from steadygrad.threat import Threat

GRID = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Radii of a curve as multiples of the audited radius."""

_MOST = 20  # radii of a grid


def fitted_grid(threat: Threat, sizes: Array) -> tuple[float, ...]:
    """The radii of `GRID`, the smallest one halved until few samples fall there.

    Args:
        threat: with the radius to which `GRID` refers.
        sizes: (M,) smallest changes found: 0 for a clean mistake, infinite for none. At most a tenth of the samples
            that were right lie below the smallest radius.

    >>> from steadygrad.threat import linf
    >>> fitted_grid(linf(0.08), np.array([0.003, 0.004]))[:4]
    (0.0025, 0.005, 0.01, 0.02)
    """
    assert isinstance(threat.eps, float | int)
    grid, right = [threat.eps * factor for factor in GRID], sizes[sizes > 0]
    if len(right):
        lowest = np.quantile(right, 0.1, method="lower")
        least = 1.0 if threat.norm == "l0" else 0.0
        while grid[0] > lowest and grid[0] / 2 >= least and len(grid) < _MOST:
            grid.insert(0, grid[0] / 2)
    return tuple(grid)


@MEASURES.register(
    "curve",
    summary="the smallest radius of a grid at which an attack breaks a sample",
    reference="Carlini et al. 2019, arXiv 1902.06705, section 4.5",
    cost="the passes of the attack for each radius that breaks the sample, and one that does not",
    soundness="attack",
)
@dataclass(frozen=True)
class Curve(Measure):
    """Searches each sample's place in a grid of radii; columns `radius` (infinite if none breaks it) and passes.

    Args:
        attack: tried at the radii.
        threat: its norm and bounds.
        grid: radii, positive and rising, in units of the inputs.

    A given column `known` (N,) holds distances at which a sample is known to fall, infinite where it is not.
    They count as well, so that the curve never lies above the worst case that other attacks show. A given column
    `stood` (N,) holds the radius at which this attack is known to leave the sample standing, or 0.
    """

    attack: Attack
    threat: Threat
    grid: tuple[float, ...]
    titled: ClassVar[str] = "curve of {attack}"

    def __post_init__(self) -> None:
        if not self.grid or self.grid[0] <= 0 or any(b <= a for a, b in pairwise(self.grid)):
            raise UsageError(f"the grid of a curve must be positive and rising, got {list(self.grid)}")

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        x, y, threat, model = batch.x, batch.y, self.threat.at(self.grid[-1]), models[0]
        known, stood = (batch.of(name) if name in batch.given else None for name in ("known", "stood"))
        place, forwards, backwards = smallest_in_grid(
            self.attack, model, x, y, threat, self.grid, batch.seeds, known, stood
        )
        radii = torch.tensor([*self.grid, torch.inf, 0.0], dtype=torch.float64)
        prediction, confidence = predict(model, x, batch.seeds)
        return {
            "radius": radii[place.cpu()],  # -1, a clean mistake, takes the last entry
            "clean_prediction": prediction,
            "clean_confidence": confidence,
            "forwards": forwards,
            "backwards": backwards,
        }


def smallest_in_grid(
    attack: Attack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    grid: Sequence[float],
    seeds: Tensor,
    known: Tensor | None = None,
    stood: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Place (N,) in the rising grid of the smallest radius that breaks each sample, and passes spent.

    Each sample comes down from the largest radius by itself, all of them in one batch with a radius
    per sample, until one does not break it: a success ends early and costs little, and there is one
    failure at most. A point found well inside its ball skips places. The place is len(grid) where no
    radius breaks the sample, and -1 for a clean mistake. `known` (N,) are distances at which the
    sample is already known to fall, infinite where it is not: the search starts below them. `stood` (N,) are radii
    at which the attack is known to leave the sample standing: the search ends there, as it would find that again.
    Returns places, forwards and backwards, all (N,).
    """
    radii = torch.tensor(grid, dtype=wide(x.device), device=x.device)
    smallest = torch.full((len(x),), len(grid), device=x.device)
    if known is not None:
        smallest = torch.where(known == 0, -1, _place(radii, known))
    forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    backwards = torch.zeros_like(forwards)
    # The first place above all radii at which the attack failed.
    least = torch.zeros_like(smallest) if stood is None else torch.searchsorted(radii, stood.to(radii) * (1 + 1e-6))
    rows = (smallest > least).nonzero().squeeze(1)
    while len(rows):
        below = smallest[rows] - 1
        found = attack(model, x[rows], y[rows], threat.rows(rows, x).at(radii[below]), generator=seeds[rows.cpu()])
        forwards[rows] += found.forwards
        backwards[rows] += found.backwards
        place = torch.where(found.distance == 0, -1, torch.minimum(_place(radii, found.distance), below))
        smallest[rows] = torch.where(found.success, place, smallest[rows])
        rows = rows[found.success & (smallest[rows] > least[rows])]
    return smallest, forwards, backwards


def _place(radii: Tensor, distance: Tensor) -> Tensor:
    """The first place whose radius reaches the distance (N,), len(radii) if none does."""
    return torch.searchsorted(radii, distance.to(radii) * (1 - 1e-6))
