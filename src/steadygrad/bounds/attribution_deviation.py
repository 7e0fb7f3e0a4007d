"""The public verb: how far can an attribution move within a threat?"""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY, dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.attributions.attribution import Attribution
from steadygrad.bounds.certified import certified
from steadygrad.bounds.linearised import Effort, linearised
from steadygrad.bounds.path import path_of
from steadygrad.bounds.result import DeviationBound, Distance, Kind
from steadygrad.classifier import check_inputs
from steadygrad.errors import UsageError, unknown_name
from steadygrad.registry import Method
from steadygrad.threat import Threat

__all__ = ["AttributionDeviation"]


@dataclass(frozen=True)
class AttributionDeviation(Method):
    """Bounds on max D(g(x), g(x + delta)) over the allowed changes delta, for an attribution g.

    "linearised" replaces g by its tangent at x: any twice differentiable model, cheap, but an upper bound
    to first order only. "certified" holds for every allowed input: models of the layers that are listed in
    `docs/concepts/bounds.md`. Neither asks the prediction to stay, which can only enlarge the set.

    Args:
        attribution: `Saliency`, `InputXGradient` or `IntegratedGradients`.
        distance: D, "euclidean" or "cosine" (1 - cos of the signed maps).
        kind: "linearised" or "certified".
        exact: inputs with at most so many entries get their exact Jacobian, of one backward pass per entry; None
            for 256 (linearised, where little is gained) and 1024 (certified, where it matters at small radii).
        rank: most Lanczos steps, of two backwards each.
        tolerance: residual of the largest singular value at which they stop, relative to it.
        restarts: starts of the search for a lower value.
        steps: ascent steps of that search on the model itself (certified).
        units: layers with more units keep the bounds of interval arithmetic (certified); more is tighter and slower.
        chunk: points (samples times path nodes) in one pass; bounds the memory, changes no value.

    Source: after Wang and Kong 2023, arXiv:2303.00340; the formulas are on the concepts page.

    >>> from steadygrad import linf, smooth
    >>> from steadygrad.attributions import Saliency
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x, target = torch.rand(2, 4), torch.tensor([0, 1])
    >>> bound = AttributionDeviation(Saliency(), kind="certified")(smooth(model, 5.0), x, target, linf(0.01))
    >>> bool((bound.lower <= bound.upper).all())
    True
    """

    attribution: Attribution
    _: KW_ONLY
    distance: Distance = "euclidean"
    kind: Kind = "linearised"
    exact: int | None = None
    rank: int = 64
    tolerance: float = 1e-3
    restarts: int = 8
    steps: int = 10
    units: int = 2048
    chunk: int = 128

    def __post_init__(self) -> None:
        if self.distance not in get_args(Distance):
            raise unknown_name("distance", self.distance, get_args(Distance))
        if self.kind not in get_args(Kind):
            raise unknown_name("kind of bound", self.kind, get_args(Kind))
        for name, least in (("rank", 1), ("restarts", 1), ("steps", 0), ("units", 0), ("chunk", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.exact is not None and self.exact < 0:
            raise UsageError(f"exact must be None or at least 0, got {self.exact}")
        if not 0 < self.tolerance < 1:
            raise UsageError(f"tolerance must be between 0 and 1, got {self.tolerance}")
        path_of(self.attribution)

    def __call__(
        self, model: nn.Module, x: Tensor, target: Tensor, threat: Threat, *, generator: randomness.Seeds = None
    ) -> DeviationBound:
        """Bounds for inputs x (N, *) with classes target (N,); the model is left as it was.

        Args:
            threat: "linf" or "l2" with a radius; its bounds of the inputs count.
            generator: gives one seed per sample, in order; or the seeds (N,); None means seed 0.

        Raises:
            UsageError: another norm, no radius, inputs or targets that do not fit; linearised: a model
                without second derivative; certified: a layer that it cannot bound, named.
        """
        if threat.norm not in ("linf", "l2"):
            raise UsageError(f"bounds exist for linf and l2, not for {threat.norm}")
        check_inputs(x, target, threat.bounds)
        x, target = x.detach(), target.to(x.device, torch.int64)
        radius = threat.radius(x)
        seeds = randomness.sample_seeds(len(x), generator)
        # Checks the classes and the model's output, too.
        self.attribution(model, x[:1], target[:1])
        if self.kind == "linearised":
            self.attribution.require_curvature(model, x, target)
        parts = []
        size = max(1, self.chunk // len(path_of(self.attribution).nodes))
        for first in range(0, len(x), size):
            some = slice(first, first + size)
            parts.append(self._bound(model, x[some], target[some], threat.at(radius[some]), seeds[some]))
        return _joined(parts)

    def _bound(self, model: nn.Module, x: Tensor, target: Tensor, threat: Threat, seeds: Tensor) -> DeviationBound:
        effort = Effort(
            exact=self.exact if self.exact is not None else 256 if self.kind == "linearised" else 1024,
            rank=self.rank,
            tolerance=self.tolerance,
            restarts=self.restarts,
            steps=self.steps,
            units=self.units,
            chunk=self.chunk,
        )
        bound = linearised if self.kind == "linearised" else certified
        return bound(model, self.attribution, x, target, threat, self.distance, seeds, effort)


def _joined(parts: list[DeviationBound]) -> DeviationBound:
    values: dict[str, Any] = {
        field.name: torch.cat([getattr(p, field.name) for p in parts])
        for field in dataclasses.fields(DeviationBound)
        if isinstance(getattr(parts[0], field.name), Tensor)
    }
    return dataclasses.replace(parts[0], **values)
