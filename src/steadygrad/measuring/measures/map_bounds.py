"""The bounds on the maps of a batch, of every kind that its model allows, at a bearable cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad.attributions import Attribution
from steadygrad.bounds import CertifiedDeviation, LinearizedDeviation
from steadygrad.bounds.path import path_of
from steadygrad.bounds.result import Distance, Kind, cosine_bound
from steadygrad.errors import Failure, UsageError
from steadygrad.threat import Threat

__all__ = ["DISTANCES", "KINDS", "K", "MapBound", "bounds_on_maps"]

DISTANCES: tuple[Distance, ...] = ("euclidean", "cosine")
KINDS: tuple[Kind, ...] = ("linearized", "certified")
K = 0.1
"""The share of the pixels that count as the top, the default of the similarities."""
_MOST_ENTRIES = 4096  # of an input whose map is certified: above, intervals say nothing and need much memory
_MOST_ROWS = 4096  # entries times path nodes for which a certified bound takes the exact Jacobian


@dataclass(frozen=True)
class MapBound:
    """Bounds of one kind for a batch; NaN where there is none.

    Attributes:
        upper: by distance, (N,), in the units of the maps.
        inputs: (N, *), the points that come closest; the input itself where there is no bound.
        certain: (N, P), 1 for the pixels that are certain to stay in the top, 0 for the others, -1 where that is
            not known; None for linearized bounds.
    """

    kind: Kind
    upper: dict[Distance, Tensor]
    inputs: Tensor
    certain: Tensor | None = None


def bounds_on_maps(
    subject: nn.Module,
    attribution: Attribution,
    x: Tensor,
    target: Tensor,
    threat: Threat,
    seeds: Tensor,
    certify: Tensor,
) -> tuple[list[MapBound], dict[Kind, str]]:
    """Bounds for inputs x (N, *), certified ones where `certify` (N,), and why there are none of a kind."""
    rows = certify.nonzero().squeeze(1)
    found: list[MapBound] = []
    refused: dict[Kind, str] = {}
    try:
        found += _linearized(subject, attribution, x, target, threat, seeds)
    except (UsageError, Failure) as error:
        refused["linearized"] = str(error)
    try:
        if len(rows):
            found.append(_certified(subject, attribution, x, target, threat, seeds, rows))
    except (UsageError, Failure) as error:
        refused["certified"] = str(error)
    return found, refused


def _linearized(
    subject: nn.Module, attribution: Attribution, x: Tensor, target: Tensor, threat: Threat, seeds: Tensor
) -> list[MapBound]:
    chunk = min(128, max(1, 2**20 // x[0].numel()))
    bounds = []
    for distance in DISTANCES:
        method = LinearizedDeviation(attribution, distance, chunk=chunk)
        bound = method(subject, x, target, threat, generator=seeds)
        bounds.append(MapBound("linearized", {distance: _finite(bound.upper)}, bound.inputs))
    return bounds


def _certified(
    subject: nn.Module,
    attribution: Attribution,
    x: Tensor,
    target: Tensor,
    threat: Threat,
    seeds: Tensor,
    rows: Tensor,
) -> MapBound:
    """The certified bounds of these rows (k,), among all of the batch."""
    entries, nodes = x[0].numel(), len(path_of(attribution).nodes)
    if entries > _MOST_ENTRIES:
        raise UsageError(f"not tried for inputs of {entries:,} entries: up to {_MOST_ENTRIES:,} are certified")
    method = CertifiedDeviation(
        attribution,
        exact=1024 if entries * nodes <= _MOST_ROWS else 0,
        units=2048 if nodes == 1 else 0,
        steps=0,  # the attacks have searched
        chunk=min(128, max(1, 2**14 // entries)),
    )
    bound = method(subject, x[rows], target[rows], threat, generator=seeds[rows.cpu()])
    clean = attribution(subject, x[rows], target[rows])
    euclidean = _finite(bound.upper)
    # The length of the map is rounded in the type of the inputs.
    length = torch.linalg.vector_norm(clean.flatten(1).double(), dim=1) * (1 - 1e-5)
    cosine = _finite(cosine_bound(length, euclidean, euclidean, euclidean))

    def among_all(values: Tensor, empty: float) -> Tensor:
        return values.new_full((len(x), *values.shape[1:]), empty).index_copy_(0, rows, values)

    return MapBound(
        "certified",
        {"euclidean": among_all(euclidean, math.nan), "cosine": among_all(cosine, math.nan)},
        x.index_copy(0, rows, bound.inputs),
        among_all(bound.certain_top_k(K).long(), -1),
    )


def _finite(upper: Tensor) -> Tensor:
    # No number is no bound.
    return torch.nan_to_num(upper.double(), nan=math.inf, posinf=math.inf)
