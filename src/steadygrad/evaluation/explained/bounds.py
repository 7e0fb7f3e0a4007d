"""The bounds on the maps of a batch, of every kind that its model allows, at a bearable cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad.attributions import Attribution
from steadygrad.bounds import CertifiedDeviation, DeviationBound, LinearizedDeviation
from steadygrad.bounds.path import path_of
from steadygrad.bounds.result import Distance, Kind, cosine_bound
from steadygrad.errors import Failure, UsageError
from steadygrad.evaluation.explained.settings import K
from steadygrad.threat import Threat

__all__ = ["DISTANCES", "KINDS", "Bound", "bounds_of"]

DISTANCES: tuple[Distance, ...] = ("euclidean", "cosine")
KINDS: tuple[Kind, ...] = ("linearized", "certified")
_MOST_ENTRIES = 4096  # of an input whose map is certified: above, intervals say nothing and need much memory
_MOST_ROWS = 4096  # entries times path nodes for which a certified bound takes the exact Jacobian


@dataclass(frozen=True)
class Bound:
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


def bounds_of(
    subject: nn.Module,
    attribution: Attribution,
    x: Tensor,
    target: Tensor,
    threat: Threat,
    seeds: Tensor,
    certify: int,
) -> tuple[list[Bound], dict[Kind, str]]:
    """Bounds for inputs x (N, *), certified ones for the first `certify`, and why there are none of a kind."""
    found: list[Bound] = []
    whys: dict[Kind, str] = {}
    for kind, make in (("linearized", _linearized), ("certified", _certified)):
        try:
            if kind == "linearized" or certify:
                found += make(subject, attribution, x, target, threat, seeds, certify)
        except (UsageError, Failure) as error:
            whys[kind] = str(error)  # type: ignore[index]
    return found, whys


def _linearized(
    subject: nn.Module, attribution: Attribution, x: Tensor, target: Tensor, threat: Threat, seeds: Tensor, _: int
) -> list[Bound]:
    chunk = min(128, max(1, 2**20 // x[0].numel()))
    bounds = []
    for distance in DISTANCES:
        method = LinearizedDeviation(attribution, distance, chunk=chunk)
        bound = method(subject, x, target, threat, generator=seeds)
        bounds.append(Bound("linearized", {distance: _finite(bound.upper)}, bound.inputs))
    return bounds


def _certified(
    subject: nn.Module, attribution: Attribution, x: Tensor, target: Tensor, threat: Threat, seeds: Tensor, first: int
) -> list[Bound]:
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
    bound = method(subject, x[:first], target[:first], threat, generator=seeds[:first])
    return [_padded(bound, x, first, attribution(subject, x[:first], target[:first]))]


def _padded(bound: DeviationBound, x: Tensor, first: int, clean: Tensor) -> Bound:
    euclidean = _finite(bound.upper)
    # The length of the map is rounded in the type of the inputs.
    length = torch.linalg.vector_norm(clean.flatten(1).double(), dim=1) * (1 - 1e-5)
    cosine = _finite(cosine_bound(length, euclidean, euclidean, euclidean))
    top = bound.certain_top_k(K).long()
    empty = torch.full((len(x) - len(clean),), math.nan, dtype=euclidean.dtype, device=x.device)
    unknown = top.new_full((len(empty), top.shape[1]), -1)
    upper: dict[Distance, Tensor] = {
        "euclidean": torch.cat([euclidean, empty]),
        "cosine": torch.cat([cosine, empty]),
    }
    return Bound("certified", upper, torch.cat([bound.inputs, x[first:]]), torch.cat([top, unknown]))


def _finite(upper: Tensor) -> Tensor:
    # No number is no bound.
    return torch.nan_to_num(upper.double(), nan=math.inf, posinf=math.inf)
