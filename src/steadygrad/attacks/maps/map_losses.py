"""What an attack on an attribution raises, and what it is judged by: one number per sample.

Top k, center of mass and target map compare pixel maps (absolute values summed over channels,
`attributions.similarity`); the Euclidean and the cosine distance compare the signed maps as they are, in
their own units, as the bounds on them do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadygrad.attributions.pixels import constant, count_of, magnitude, settle, top, unit, zero
from steadygrad.attributions.structure import center_of
from steadygrad.errors import UsageError


@dataclass(frozen=True)
class Reference:
    """What the maps of changed inputs are compared with: maps (N, *)."""

    clean: Tensor  # of the clean inputs
    k: float = 0.1  # share of the pixels, for "top-k"
    aim: Tensor | None = None  # that "target-map" leads to

    def rows(self, rows: slice | Tensor) -> Reference:
        """The reference of some samples."""
        return replace(self, clean=self.clean[rows], aim=self.aim[rows] if self.aim is not None else None)


Score = Callable[[Tensor, Reference], Tensor]


@dataclass(frozen=True)
class MapLoss:
    """One way to say how far maps (N, *) are from where they were, as numbers (N,).

    Attributes:
        loss: what an attack raises; differentiable.
        deviation: what is reported, 0 for the clean map.
        rank: which of two points is kept, the larger; breaks the ties of the deviation.
    """

    loss: Score
    deviation: Score
    rank: Score


def _mass_in_top(maps: Tensor, reference: Reference) -> Tensor:
    """Share (N,) of the mass that lies in the clean top k."""
    size = magnitude(maps)
    size = size / size.detach().amax(1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
    count = count_of(reference.k, size.shape[1])
    inside = torch.where(top(magnitude(reference.clean), count), size, 0.0).sum(1)
    return inside / size.sum(1).clamp_min(torch.finfo(size.dtype).tiny)


def _common(maps: Tensor, reference: Reference) -> Tensor:
    """Number (N,) of pixels that the top k have in common."""
    before, after = magnitude(reference.clean), magnitude(maps)
    count = count_of(reference.k, before.shape[1])
    return (top(before, count) & top(after, count)).sum(1).to(after.dtype)


def _lost_top(maps: Tensor, reference: Reference) -> Tensor:
    """Share (N,) of the top k pixels that are lost."""
    before, after = magnitude(reference.clean), magnitude(maps)
    share = _common(maps, reference) / count_of(reference.k, before.shape[1])
    return 1 - settle(share, constant(before), constant(after))


def _displacement(maps: Tensor, reference: Reference) -> Tensor:
    """Distance (N,) of the centers of mass, as a share of the diagonal."""
    before, after = (magnitude(m).view(len(m), *m.shape[-2:]) for m in (reference.clean, maps))
    diagonal = math.hypot(*(n - 1 for n in before.shape[1:])) or 1.0
    distance: Tensor = torch.linalg.vector_norm(center_of(after) - center_of(before), dim=1)
    return settle(distance / diagonal, zero(before.flatten(1)), zero(after.flatten(1)), 0.0, 1.0)


def _approach(maps: Tensor, reference: Reference) -> Tensor:
    """Gain (N,) in cosine to the target map."""
    assert reference.aim is not None
    aim = unit(magnitude(reference.aim))
    return ((unit(magnitude(maps)) - unit(magnitude(reference.clean))) * aim).sum(1)


def _euclidean(maps: Tensor, reference: Reference) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm((maps - reference.clean).flatten(1), dim=1)
    return distance


def _cosine(maps: Tensor, reference: Reference) -> Tensor:
    before, after = reference.clean.flatten(1), maps.flatten(1)
    # 1 - cos is half the squared distance of the unit maps, which keeps the digits of a small angle.
    distance = (unit(after) - unit(before)).square().sum(1) / 2
    return settle(distance, before.abs().amax(1) == 0, after.abs().amax(1) == 0, 0.0, 1.0)


MAP_LOSSES: dict[str, MapLoss] = {
    "top-k": MapLoss(
        lambda maps, reference: -_mass_in_top(maps, reference),
        _lost_top,
        # Whole pixels first; the mass, a number below 1, decides among equals.
        lambda maps, reference: -_common(maps, reference) - _mass_in_top(maps, reference),
    ),
    "mass-center": MapLoss(_displacement, _displacement, _displacement),
    "target-map": MapLoss(_approach, _approach, _approach),
    "euclidean": MapLoss(_euclidean, _euclidean, _euclidean),
    "cosine": MapLoss(_cosine, _cosine, _cosine),
}


def check_reference(name: str, x: Tensor, k: float, aim: Tensor | None) -> Tensor | None:
    """Refuse what a measure cannot compare; returns the maps to aim at as (N, *), or None."""
    if name == "top-k":
        count_of(k, x[0].numel())
    if name == "mass-center" and x.ndim not in (3, 4):
        raise UsageError(f"a center of mass needs inputs (N, C, H, W) or (N, H, W), got shape {tuple(x.shape)}")
    if (aim is not None) != (name == "target-map"):
        wanted = "needs maps to aim at: give aim=" if aim is None else "aims at no map: leave aim= out"
        raise UsageError(f"an attack that measures {name!r} {wanted}")
    if aim is None:
        return None
    if aim.shape not in (x.shape, x.shape[1:]) or not aim.is_floating_point() or not bool(torch.isfinite(aim).all()):
        raise UsageError(
            f"aim must hold finite floating-point maps of shape {tuple(x.shape)} or {tuple(x.shape[1:])}, "
            f"got {aim.dtype} of shape {tuple(aim.shape)}"
        )
    return aim.detach().to(x).expand_as(x)
