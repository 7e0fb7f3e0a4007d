"""Every point that attacks on maps try, compared with bounds on how far the maps can move."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from steadygrad.attacks import ExplanationAttack
from steadygrad.attacks.maps.map_run import ExplanationRun
from steadygrad.attributions import Attribution
from steadygrad.attributions.pixels import image_array
from steadygrad.bounds import deviation
from steadygrad.bounds.linearized.jacobian import Jacobian
from steadygrad.bounds.path import path_of
from steadygrad.bounds.result import Distance, Kind
from steadygrad.classifier import frozen, predict
from steadygrad.derivatives import math_attention
from steadygrad.errors import UsageError
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure, settings_of
from steadygrad.measuring.measures.map_bounds import DISTANCES, KINDS, length_of
from steadygrad.memory import at_once
from steadygrad.precision import exact, widened
from steadygrad.threat import Threat, per_sample

BINS = 20
"""Of the shares of a remainder."""

# Points as near to a certified bound as rounding in float32 may hide are measured again in float64.
_ROUNDING = 1e-5
# The linearized bound and the tangent are computed in float32, its singular value to a residual of 1e-3.
_TOLERANCE = 2e-3
_Tally: TypeAlias = dict[str, Tensor]


@MEASURES.register(
    "map_points",
    summary="how many points of attacks on a map exceed bounds on it, and whether the first order explains that",
    reference="Wang and Kong 2023, arXiv 2303.00340",
    cost="the passes of the attacks; one product with the Jacobian for a point beyond a linearized bound",
    soundness="attack",
    order=2,
)
@dataclass(frozen=True)
class MapPoints(Measure):
    """Counts the points that attacks on the map of the predicted class try, and those of them beyond bounds.

    A point is one iterate of one restart. It counts if it is inside the threat and keeps the prediction. The bounds
    are given columns, `deviation_euclidean_linearized` and so on, in the units of the maps. Each column has a value
    for each attack, (N, A):

    * `tried`, `kept`: points, and those that count;
    * `deviation_euclidean`, `deviation_cosine`: the largest of a point that counts;
    * `over_euclidean_linearized` and so on: how many exceed the bound. One that rounding may have put beyond a
      certified bound is measured again in float64;
    * `unexplained`: how many exceed a linearized bound although their own point on the tangent does, too, which
      a bound for the tangent rules out;
    * `excess` (N, A, BINS + 1): counts of excess over remainder, ||g(x + d) - g(x) - J d||, of the points beyond the
      linearized Euclidean bound, in equal bins of [0, 1] and one for what is above.

    Large ones are `clean` (N, C, H, W), `furthest` (N, A, *), the points that moved the map furthest (Euclidean), and
    the maps of both, `map_clean` and `map_furthest`.

    Args:
        attacks: on one and the same attribution.
        threat: linf or l2, with a radius.
    """

    attacks: tuple[ExplanationAttack, ...]
    threat: Threat
    shard: ClassVar[int] = 50
    kept: ClassVar[tuple[str, ...]] = ("clean", "furthest", "map_clean", "map_furthest")
    titled: ClassVar[str] = "points of attacks on the maps of {attribution}, {threat}"

    def __post_init__(self) -> None:
        if len({repr(attack.attribution) for attack in self.attacks}) != 1:
            raise UsageError("attacks whose points are compared with bounds need one and the same attribution")

    @property
    def attribution(self) -> Attribution:
        """Whose maps are attacked."""
        return self.attacks[0].attribution

    @property
    def draws_as(self) -> Any:
        """The same at every radius and cost."""
        return {"explained": settings_of(self.attribution)}

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x = models[0], batch.x
        target = predict(model, x, batch.seeds)[0]
        bounds = {(d, kind): batch.of(f"deviation_{d}_{kind}") for d in DISTANCES for kind in KINDS}
        tallies = []
        with frozen(model, batch.seeds), math_attention():
            known = _Known(model, self.attribution, x, target, bounds)
            for attack in self.attacks:
                run = _ComparedRun(attack, model, x, target, self.threat, batch.seeds)
                run.known, run.tally = known, _empty(x)
                attack.search(run)
                tallies.append(run.tally)
        columns = {name: torch.stack([tally[name] for tally in tallies], 1) for name in tallies[0]}
        moved = [self.attribution(model, tally["furthest"], target) for tally in tallies]
        maps = {"map_clean": self.attribution(model, x, target), "map_furthest": torch.stack(moved, 1)}
        return {**columns, **maps, "clean": image_array(x)}


def _empty(x: Tensor) -> _Tally:
    zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    counts = ["tried", "kept", "unexplained", *(f"over_{d}_{kind}" for d in DISTANCES for kind in KINDS)]
    return {
        **{name: zero.clone() for name in counts},
        **{f"deviation_{d}": widened(zero) for d in DISTANCES},
        "excess": zero[:, None].repeat(1, BINS + 1),
        "furthest": x.clone(),
    }


class _Known:
    """What is known of the maps of a batch: the clean ones, also in float64, their tangent and their bounds."""

    def __init__(
        self,
        model: nn.Module,
        attribution: Attribution,
        x: Tensor,
        target: Tensor,
        bounds: Mapping[tuple[Distance, Kind], Tensor],
    ) -> None:
        self.attribution, self.x, self.target, self.bounds = attribution, x, target, bounds
        path = path_of(attribution)
        points = at_once(len(x) * len(path.nodes), x.shape[1:], x.device, order=2)
        self.tangent = Jacobian(model, path, x, target, points)
        self.exact = copy.deepcopy(model).to(exact(x).device).double()
        self.exact_clean = self._exact_maps(x, target)

    def _exact_maps(self, points: Tensor, target: Tensor) -> Tensor:
        points = exact(points)
        return self.attribution.maps(self.exact, points, target.to(points.device), create_graph=False)

    def count(self, tally: _Tally, clean: Tensor, points: Tensor, maps: Tensor, kept: Tensor) -> None:
        """Count points (N, *) with their maps; `kept` (N,) are those that count."""
        tally["tried"] += 1
        tally["kept"] += kept
        moved = {d: deviation(d, clean, maps) for d in DISTANCES}
        further = kept & (moved["euclidean"] > tally["deviation_euclidean"])
        tally["furthest"] = torch.where(per_sample(further, points), points, tally["furthest"])
        size = length_of(clean)
        over: dict[Distance, Tensor] = {}
        for distance, far in moved.items():
            tally[f"deviation_{distance}"] = torch.maximum(tally[f"deviation_{distance}"], torch.where(kept, far, 0.0))
            over[distance] = kept & (far > self.bounds[distance, "linearized"])
            slack = _ROUNDING * (size if distance == "euclidean" else 1.0)
            near = kept & (far > self.bounds[distance, "certified"] - slack)
            tally[f"over_{distance}_linearized"] += over[distance]
            tally[f"over_{distance}_certified"] += self._certain(near, distance, points)
        if any(bool(rows.any()) for rows in over.values()):
            self._explain(tally, over, moved["euclidean"], points, maps, clean)

    def _certain(self, near: Tensor, distance: Distance, points: Tensor) -> Tensor:
        """Which of the points near a certified bound are beyond it, in float64."""
        rows = near.nonzero().flatten()
        if len(rows):
            maps = self._exact_maps(points[rows], self.target[rows])
            before = self.exact_clean[rows.to(maps.device)]
            beyond = deviation(distance, before, maps) > exact(self.bounds[distance, "certified"][rows])
            near = near.index_copy(0, rows, beyond.to(near.device))
        return near

    def _explain(
        self, tally: _Tally, over: Mapping[Distance, Tensor], moved: Tensor, points: Tensor, maps: Tensor, clean: Tensor
    ) -> None:
        """The point on the tangent must be within the linearized bound; the remainder is the way from there."""
        first = widened(self.tangent.apply((points - self.x).flatten(1)))
        before = widened(clean.flatten(1))
        for distance, rows in over.items():
            limit = self.bounds[distance, "linearized"]
            wrong = deviation(distance, before, before + first) > limit * (1 + _TOLERANCE)
            tally["unexplained"] += rows & wrong
        rest = torch.linalg.vector_norm(widened(maps.flatten(1)) - before - first, dim=1)
        excess = moved - self.bounds["euclidean", "linearized"]
        share = (excess / rest.clamp_min(torch.finfo(rest.dtype).tiny) * BINS).floor().clamp(0, BINS).long()
        tally["excess"].scatter_add_(1, share[:, None], over["euclidean"].long()[:, None])


class _ComparedRun(ExplanationRun):
    """A run every point of which is counted."""

    known: _Known
    tally: _Tally

    def remember(self, points: Tensor, maps: Tensor, logits: Tensor) -> None:
        super().remember(points, maps, logits)
        same = (logits.argmax(1) == self.prediction) & torch.isfinite(logits).all(1)
        kept = same & self.threat.allows(self.x, points) & torch.isfinite(maps).flatten(1).all(1)
        self.known.count(self.tally, self.reference.clean, points, maps, kept)
