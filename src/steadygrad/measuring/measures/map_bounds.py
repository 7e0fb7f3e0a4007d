"""Bounds on maps: one of them for each sample, and those of every kind that a model allows at a bearable cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from steadygrad.attributions import Attribution
from steadygrad.bounds import Bound, CertifiedDeviation, LinearizedDeviation
from steadygrad.bounds.path import path_of
from steadygrad.bounds.result import Distance, Kind, cosine_bound
from steadygrad.classifier import predict
from steadygrad.errors import Failure, UsageError
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure, settings_of
from steadygrad.precision import widened
from steadygrad.threat import Threat

DISTANCES: tuple[Distance, ...] = ("euclidean", "cosine")
KINDS: tuple[Kind, ...] = ("linearized", "certified")
K = 0.1
"""The share of the pixels that count as the top, the default of the similarities."""
_MOST_ENTRIES = 4096  # of an input whose map is certified: above, intervals say nothing and need much memory
_MOST_ROWS = 4096  # entries times path nodes for which a certified bound takes the exact Jacobian


@MEASURES.register(
    "bounded_maps",
    summary="how far the map of the predicted class can move within a threat, and the map's length",
    reference="after Wang and Kong 2023, arXiv 2303.00340",
    cost="that of the bound, and one map",
    soundness="linearized",
    order=2,
)
@dataclass(frozen=True)
class BoundedMaps(Measure):
    """Writes `upper`, the bound, `lower`, what an allowed input reaches by its standard, and `length` of the map."""

    bound: Bound
    threat: Threat
    shard: ClassVar[int] = 16
    titled: ClassVar[str] = "{bound}, {threat}"

    @property
    def draws_as(self) -> Any:
        """The same in every threat."""
        return settings_of(self.bound)

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x = models[0], batch.x
        target = predict(model, x, batch.seeds)[0]
        found = self.bound(model, x, target, self.threat, generator=batch.seeds)
        length = length_of(self.bound.attribution(model, x, target))
        return {"upper": widened(found.upper), "lower": widened(found.lower), "length": length}


def length_of(maps: Tensor) -> Tensor:
    """The l2 norm (N,) of maps (N, *), in the widest type of the device."""
    length: Tensor = torch.linalg.vector_norm(widened(maps.flatten(1)), dim=1)
    return length


def certified_cosine(length: Tensor, euclidean: Tensor) -> Tensor:
    """The bound (N,) on 1 - cosine that follows from a certified Euclidean one of maps of a length, (N,) each."""
    # The length is rounded in the type of the inputs: a little less turns the map further.
    return cosine_bound(length * (1 - 1e-5), euclidean, euclidean, euclidean)


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
        methods = {distance: LinearizedDeviation(attribution, distance) for distance in DISTANCES}
        bounds = {d: method(subject, x, target, threat, generator=seeds) for d, method in methods.items()}
        found += [MapBound("linearized", {d: _finite(bound.upper)}, bound.inputs) for d, bound in bounds.items()]
    except (UsageError, Failure) as error:
        refused["linearized"] = str(error)
    try:
        if len(rows):
            found.append(_certified(subject, attribution, x, target, threat, seeds, rows))
    except (UsageError, Failure) as error:
        refused["certified"] = str(error)
    return found, refused


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
    euclidean = _finite(bound.upper)
    length = length_of(attribution(subject, x[rows], target[rows]))
    upper = {"euclidean": euclidean, "cosine": _finite(certified_cosine(length, euclidean))}

    def among_all(values: Tensor, empty: float) -> Tensor:
        return values.new_full((len(x), *values.shape[1:]), empty).index_copy_(0, rows, values)

    return MapBound(
        "certified",
        {distance: among_all(upper[distance], math.nan) for distance in DISTANCES},
        x.index_copy(0, rows, bound.inputs),
        among_all(bound.certain_top_k(K).long(), -1),
    )


def _finite(upper: Tensor) -> Tensor:
    # No number is no bound.
    return torch.nan_to_num(widened(upper), nan=math.inf, posinf=math.inf)
