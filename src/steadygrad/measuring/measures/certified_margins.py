"""What is certified of a model's answers: at one radius, at those of a curve, and as far as it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from steadygrad.bounds import CertifiedMargin
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.threat import Threat


@MEASURES.register(
    "certified_margins",
    summary="a lower bound of the margin of the label, and whether it is positive: no allowed change turns the answer",
    reference="Zhang et al. 2018, arXiv 1811.00866",
    cost="one certified margin",
    soundness="certified",
    order=1,
)
@dataclass(frozen=True)
class CertifiedMargins(Measure):
    """Writes `margin`, `certified` and passes; a sample that is wrong without a change is never certified."""

    threat: Threat
    bound: CertifiedMargin = CertifiedMargin()

    titled: ClassVar[str] = "certified margins"
    may_refuse: ClassVar[bool] = True
    counts_passes: ClassVar[bool] = True

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        found = self.bound(models[0], batch.x, batch.y, self.threat)
        return {
            "margin": found.margin,
            "certified": found.certified,
            "forwards": found.forwards,
            "backwards": found.backwards,
        }


@MEASURES.register(
    "certified_curve",
    summary="the largest radius of a grid at which a sample is certified",
    reference="Zhang et al. 2018, arXiv 1811.00866",
    cost="a certified margin for each halving of the radii between what is certified and what an attack reached",
    soundness="certified",
    order=1,
)
@dataclass(frozen=True)
class CertifiedCurve(Measure):
    """Writes `radius`, 0 for none, and passes.

    A given column `certified` (N,) holds a radius at which each sample is certified already, or 0, and `fell` (N,) that
    at which an attack turned it, or infinity: no larger one is tried.
    """

    threat: Threat
    grid: tuple[float, ...]
    bound: CertifiedMargin = CertifiedMargin()

    titled: ClassVar[str] = "certified curve"
    counts_passes: ClassVar[bool] = True

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        x, y, grid = batch.x, batch.y, torch.tensor(self.grid, dtype=torch.float64)
        sure, fell = (torch.from_numpy(batch.given[name].copy()) for name in ("certified", "fell"))
        # So many radii of the grid are certified, and so many may be.
        low, high = (grid <= sure[:, None]).sum(1), (grid < fell[:, None]).sum(1)
        forwards, backwards = torch.zeros_like(low), torch.zeros_like(low)
        while (active := (low < high).nonzero()[:, 0]).numel():
            trial = (low[active] + high[active] + 1) // 2
            rows = active.to(x.device)
            threat = self.threat.rows(rows, x).at(grid[trial - 1])
            found = self.bound(models[0], x[rows], y[rows], threat)
            holds = found.certified.cpu()
            low[active] = torch.where(holds, trial, low[active])
            high[active] = torch.where(holds, high[active], trial - 1)
            forwards[active] += found.forwards.cpu()
            backwards[active] += found.backwards.cpu()
        radii = torch.cat([grid.new_zeros(1), grid])
        return {"radius": radii[low], "forwards": forwards, "backwards": backwards}


@MEASURES.register(
    "certified_radius",
    summary="the largest radius found at which a sample is certified",
    reference="Zhang et al. 2018, arXiv 1811.00866",
    cost="a certified margin for each trial, and two more",
    soundness="certified",
    order=1,
)
@dataclass(frozen=True)
class CertifiedRadius(Measure):
    """Writes `radius`, 0 where a sample is not certified at all, and passes; the threat gives norm, bounds and mask."""

    threat: Threat
    trials: int = 10
    bound: CertifiedMargin = CertifiedMargin()

    titled: ClassVar[str] = "certified radius"
    counts_passes: ClassVar[bool] = True

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x, y = models[0], batch.x, batch.y
        radius = self.bound.radius(model, x, y, self.threat, trials=self.trials)
        once = self.bound(model, x[:1], y[:1], self.threat.rows(slice(0, 1), x).at(0.0))
        return {"radius": radius, "forwards": self._all(once.forwards, y), "backwards": self._all(once.backwards, y)}

    def _all(self, once: Tensor, y: Tensor) -> Tensor:
        """The passes (N,) of all trials and of that without a change, each as many as one."""
        return ((self.trials + 1) * once).expand_as(y)
