"""What every bound is: a frozen value that says how far an attribution can move within a threat."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.arguments import Classes, Inputs, public
from steadygrad.attributions import Attribution, Saliency
from steadygrad.bounds.path import path_of
from steadygrad.bounds.result import DeviationBound, Distance
from steadygrad.calling import called
from steadygrad.classifier import check_inputs
from steadygrad.errors import UsageError
from steadygrad.memory import at_once
from steadygrad.precision import wide
from steadygrad.registry import Method, Registry
from steadygrad.threat import Threat
from steadygrad.values import Count, Whole

BOUNDS: Registry[Method] = Registry("bound")


def check_float64(x: Tensor) -> None:
    """Refuse inputs on a device without float64, in which bounds are computed."""
    if wide(x.device) != torch.float64:
        raise UsageError(f"bounds are computed in float64, which {x.device.type} has not: compute on the CPU")


@dataclass(frozen=True)
class Bound(Method, abc.ABC):
    """Bounds max D(g(x), g(x + delta)) over the allowed changes delta, for an attribution g.

    The prediction need not stay the same, which can only enlarge the set of changes.

    Args:
        attribution: g: `Saliency`, `InputXGradient` or `IntegratedGradients`.
        distance: D; a cosine distance is 1 - cos of the signed maps.
        exact: inputs with at most so many entries get their exact Jacobian, of one backward pass per entry.
        restarts: starts of the search for a lower value.
        chunk: points (samples times path nodes) in one pass at most, fewer of large ones; changes no value.
    """

    attribution: Attribution = Saliency()
    distance: Distance = "euclidean"
    exact: Whole = 256
    restarts: Count = 8
    chunk: Count = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        path_of(self.attribution)

    @public
    def __call__(
        self, model: nn.Module, x: Inputs, target: Classes, threat: Threat, *, generator: randomness.Seeds = None
    ) -> DeviationBound:
        """Bounds for inputs x (N, *) with classes target (N,); the model is left as it was.

        Args:
            threat: "linf" or "l2" with a radius; its bounds of the inputs count.
            generator: gives one seed per sample, in order; or the seeds (N,); None means seed 0.

        Raises:
            UsageError: another norm, no radius, inputs or targets that do not fit; linearized: a model
                without second derivative; certified: a layer that it cannot bound, named; a device without float64.
        """
        if threat.norm not in ("linf", "l2"):
            raise UsageError(f"bounds exist for linf and l2, not for {threat.norm}")
        check_float64(x)
        check_inputs(x, target, threat.bounds)
        x, model = x.detach(), called(model)
        threat.radius(x)
        threat.changeable(x)
        seeds = randomness.sample_seeds(len(x), generator)
        self.check_model(model, x, target)
        size = max(1, self.points(x) // len(path_of(self.attribution).nodes))
        parts = [
            self.bound_batch(model, x[some], target[some], threat.rows(some, x), seeds[some])
            for some in (slice(first, first + size) for first in range(0, len(x), size))
        ]
        tensors = [name for name, value in vars(parts[0]).items() if isinstance(value, Tensor)]
        joined: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in tensors}
        return replace(parts[0], **joined)

    def points(self, x: Tensor) -> int:
        """How many points of the size of inputs (N, *) are in one pass."""
        return at_once(self.chunk, x.shape[1:], x.device, order=2)

    def check_model(self, model: nn.Module, x: Tensor, target: Tensor) -> None:
        """Refuse classes, an output or a model that this bound does not exist for."""
        for one in {int(target.min()), int(target.max())}:  # which refuses classes that the model does not have
            self.attribution(model, x[:1], target.new_tensor([one]))

    @abc.abstractmethod
    def bound_batch(self, model: nn.Module, x: Tensor, target: Tensor, threat: Threat, seeds: Tensor) -> DeviationBound:
        """The bound of one batch x (N, *) with classes target (N,), radii (N,) and seeds (N,), without checks."""
