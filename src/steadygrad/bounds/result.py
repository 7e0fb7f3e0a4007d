"""What a bound on the deviation of an attribution says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from steadygrad.arguments import arithmetic
from steadygrad.attributions.pixels import count_of, magnitude
from steadygrad.errors import UsageError
from steadygrad.precision import widened

Distance = Literal["euclidean", "cosine"]
Kind = Literal["linearized", "certified"]


@dataclass(frozen=True)
class DeviationBound:
    """How far an attribution can move within a threat, from above and from below.

    Attributes:
        upper: (N,); no allowed input moves the map further, to first order ("linearized") or at all ("certified").
        lower: (N,); what an allowed input reaches, by the same standard: on the tangent, or on the model.
        attack: (N,); what the model's own map moves by at `inputs`.
        inputs: (N, *); allowed inputs, the best that were found.
        residual: (N,); the share of `upper` (before it becomes a cosine) that makes up for singular values
            that are known up to a residual only; 0 where the Jacobian is exact and for certified bounds.
        remainder: (N,); || g(inputs) - g(x) - J (inputs - x) ||: what the first order leaves out there. None
            for certified bounds.
        low, high: (N, *); the map lies between them, entry by entry, on the whole threat. None for
            linearized bounds.
        forwards, backwards: (N,) passes that each sample needs; not those that are made again to save memory.
    """

    upper: Tensor
    lower: Tensor
    attack: Tensor
    inputs: Tensor
    kind: Kind
    distance: Distance  # a cosine distance is 1 - cos, in [0, 2]
    residual: Tensor
    forwards: Tensor
    backwards: Tensor
    remainder: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None

    @property
    def gap(self) -> Tensor:
        """upper / lower (N,): 1 is exact; infinite where nothing was found below a positive bound."""
        return torch.where(self.upper == self.lower, 1.0, self.upper / self.lower)

    @arithmetic
    def certain_top_k(self, k: float = 0.1) -> Tensor:
        """Pixels (N, P) that are among the top k, a share in (0, 1], for every allowed input.

        Pixels are compared as in `attributions.similarity`: by the sum of absolute values over the channels.
        A pixel is certain if fewer than k others can come up to the least that it can be.

        Raises:
            UsageError: a linearized bound, or k out of range.
        """
        if self.low is None or self.high is None:
            raise UsageError("only a certified bound proves pixels: use CertifiedDeviation")
        least = magnitude(torch.maximum(self.low, -self.high).clamp_min(0))
        most = magnitude(torch.maximum(self.high.abs(), self.low.abs()))
        # How many pixels can reach each one's least value: itself is among them.
        ordered = most.sort(dim=1).values
        reaching = least.shape[1] - torch.searchsorted(ordered, least.contiguous(), side="left")
        return reaching <= count_of(k, least.shape[1])


@arithmetic
def deviation(distance: Distance, before: Tensor, after: Tensor) -> Tensor:
    """Distance (N,) between signed maps (N, *): Euclidean, or 1 - cosine.

    A zero map is at cosine distance 0 from another and at 1 from any other map.
    """
    a, b = (widened(m.flatten(1)) for m in (before, after))
    if distance == "euclidean":
        length: Tensor = torch.linalg.vector_norm(a - b, dim=1)
        return length
    sizes = [torch.linalg.vector_norm(m, dim=1) for m in (a, b)]
    empty = [s == 0 for s in sizes]
    units = [m / torch.where(e, 1.0, s)[:, None] for m, s, e in zip((a, b), sizes, empty)]
    # Half the squared chord: 1 - cos without its cancellation at small angles.
    value = 0.5 * (units[0] - units[1]).square().sum(1)
    return torch.where(empty[0] & empty[1], 0.0, torch.where(empty[0] | empty[1], 1.0, value))


def cosine_bound(norm: Tensor, across: Tensor, along: Tensor, total: Tensor | None = None) -> Tensor:
    """The largest 1 - cos (N,) between a map of length `norm` (N,) and one that differs by a bounded vector.

    Args:
        across, along: bounds (N,) on the parts of the difference at right angles and parallel to the map.
        total: bound (N,) on the difference, if it is less than both together give.
    """
    total = torch.hypot(across, along) if total is None else total
    reach = torch.where(norm > 0, norm, 1.0)
    # Tangent of the angle if both parts are at their worst; sine if only their sum of squares is known.
    tangent = across / torch.where(along < norm, norm - along, 1.0)
    first = 1 - 1 / torch.sqrt(1 + tangent.square())
    second = 1 - torch.sqrt((1 - (total / reach).square()).clamp_min(0))
    first = torch.where(along < norm, first, 2.0)
    second = torch.where(total < norm, second, 2.0)
    return torch.where(norm > 0, torch.minimum(first, second), torch.where(total > 0, 1.0, 0.0))
