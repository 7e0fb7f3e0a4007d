"""Attacks with witnesses: every point that an attack sees is held against the bounds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad.attacks.maps.attribution_attacks import ExplanationAttack
from steadygrad.attacks.maps.map_run import ExplanationRun
from steadygrad.attributions import Attribution
from steadygrad.bounds.path import path_of
from steadygrad.bounds.result import Distance, deviation
from steadygrad.bounds.tangent import Tangent
from steadygrad.classifier import frozen
from steadygrad.derivatives import math_attention
from steadygrad.threat import Threat

__all__ = ["BINS", "DISTANCES", "Limits", "Tally", "witnessed"]

DISTANCES: tuple[Distance, ...] = ("euclidean", "cosine")
BINS = 20

# Bounds (N,) by kind and distance.
Limits = Mapping[tuple[str, Distance], Tensor]

# Points as near to a certified bound as rounding in float32 may hide are measured again in float64.
_ROUNDING = 1e-5
# The linearised bound and the tangent are computed in float32, its singular value to a residual of 1e-3.
_TOLERANCE = 2e-3


@dataclass
class Tally:
    """What the points of one attack on N images reached.

    Attributes:
        tried: (N,) points seen.
        kept: (N,) of them, those inside the threat that keep the prediction; only they count.
        far: by distance, (N,) the largest deviation among them.
        beyond: by kind and distance, (N,) how many exceed the bound.
        unexplained: (N,) how many exceed a linearised bound although their own tangent point does, too.
        shares: counts of excess / remainder of the points beyond the linearised Euclidean bound, in BINS
            equal bins of [0, 1] and one for what is above.
        best: (N, *) the point that moved the map furthest (Euclidean).
    """

    tried: Tensor
    kept: Tensor
    far: dict[Distance, Tensor]
    beyond: dict[tuple[str, Distance], Tensor]
    unexplained: Tensor
    best: Tensor
    shares: Tensor = field(default_factory=lambda: torch.zeros(BINS + 1, dtype=torch.int64))


class _Ledger:
    """The clean maps, the tangent and the bounds of one batch."""

    def __init__(self, model: nn.Module, attribution: Attribution, x: Tensor, target: Tensor, limits: Limits) -> None:
        self.attribution, self.x, self.target, self.limits = attribution, x, target, limits
        path = path_of(attribution)
        self.tangent = Tangent(model, path, x, target, len(x) * len(path.nodes))
        self.exact = copy.deepcopy(model).double()
        self.exact_clean = self._exact_maps(x, target)

    def _exact_maps(self, points: Tensor, target: Tensor) -> Tensor:
        return self.attribution.maps(self.exact, points.double(), target, create_graph=False)

    def enter(self, tally: Tally, clean: Tensor, points: Tensor, maps: Tensor, kept: Tensor) -> None:
        """Count points (N, *) with their maps; `kept` (N,) are those that count."""
        tally.tried += 1
        tally.kept += kept
        moved = {d: deviation(d, clean, maps) for d in DISTANCES}
        further = kept & (moved["euclidean"] > tally.far["euclidean"])
        tally.best = torch.where(further.view(-1, *[1] * (points.ndim - 1)), points, tally.best)
        size = torch.linalg.vector_norm(clean.flatten(1).double(), dim=1)
        over: dict[Distance, Tensor] = {}
        for (kind, distance), limit in self.limits.items():
            if kind == "linearised":
                over[distance] = beyond = kept & (moved[distance] > limit)
            else:
                slack = _ROUNDING * (size if distance == "euclidean" else 1.0)
                beyond = self._certain(kept & (moved[distance] > limit - slack), distance, limit, points)
            tally.beyond[kind, distance] += beyond
        for distance, reached in moved.items():
            tally.far[distance] = torch.maximum(tally.far[distance], torch.where(kept, reached, 0.0))
        if any(bool(rows.any()) for rows in over.values()):
            self._explain(tally, over, moved["euclidean"], points, maps, clean)

    def _certain(self, near: Tensor, distance: Distance, limit: Tensor, points: Tensor) -> Tensor:
        """Which of the points near a certified bound are beyond it, in float64."""
        rows = near.nonzero().flatten()
        if len(rows):
            maps = self._exact_maps(points[rows], self.target[rows])
            near = near.clone()
            near[rows] = deviation(distance, self.exact_clean[rows], maps) > limit[rows]
        return near

    def _explain(
        self, tally: Tally, over: Mapping[Distance, Tensor], moved: Tensor, points: Tensor, maps: Tensor, clean: Tensor
    ) -> None:
        """The point on the tangent must be within the linearised bound; the remainder is the way from there."""
        first = self.tangent.apply((points - self.x).flatten(1)).double()
        before = clean.flatten(1).double()
        for distance in DISTANCES:
            limit = self.limits["linearised", distance]
            wrong = deviation(distance, before, before + first) > limit * (1 + _TOLERANCE)
            tally.unexplained += over[distance] & wrong
        rows = over["euclidean"]
        rest = torch.linalg.vector_norm(maps.flatten(1).double() - before - first, dim=1)[rows]
        excess = (moved - self.limits["linearised", "euclidean"])[rows]
        share = (excess / rest.clamp_min(1e-300) * BINS).floor().clamp(0, BINS).long()
        tally.shares += torch.bincount(share.cpu(), minlength=BINS + 1)


class _Witnessed(ExplanationRun):
    """A run that shows its ledger every point it explains."""

    ledger: _Ledger
    tally: Tally

    def remember(self, points: Tensor, maps: Tensor, logits: Tensor) -> None:
        super().remember(points, maps, logits)
        same = (logits.argmax(1) == self.prediction) & torch.isfinite(logits).all(1)
        kept = same & self.threat.allows(self.x, points) & torch.isfinite(maps).flatten(1).all(1)
        self.ledger.enter(self.tally, self.reference.clean, points, maps, kept)


def witnessed(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    threat: Threat,
    attacks: Mapping[str, ExplanationAttack],
    limits: Limits,
    seeds: Tensor,
) -> dict[str, Tally]:
    """Run attacks on the maps of predicted classes target (N,), with what every one of their points reached."""
    out: dict[str, Tally] = {}
    with frozen(model, seeds), math_attention():
        ledger: _Ledger | None = None
        for name, attack in attacks.items():
            run = _Witnessed(attack, model, x, target, threat, seeds)
            ledger = ledger or _Ledger(model, attack.attribution, x, target, limits)
            run.ledger, run.tally = ledger, _empty(x, limits)
            attack.search(run)
            out[name] = run.tally
    return out


def _empty(x: Tensor, limits: Limits) -> Tally:
    zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return Tally(
        tried=zero.clone(),
        kept=zero.clone(),
        far={d: zero.double() for d in DISTANCES},
        beyond={key: zero.clone() for key in limits},
        unexplained=zero.clone(),
        best=x.clone(),
    )


def plain(tallies: Mapping[str, Tally]) -> dict[str, np.ndarray]:
    """Tallies as arrays (A, N) over the attacks, for a file."""
    rows = list(tallies.values())

    def stacked(values: list[Tensor]) -> np.ndarray:
        return torch.stack(values).cpu().numpy()

    out = {k: stacked([getattr(t, k) for t in rows]) for k in ("tried", "kept", "unexplained", "shares")}
    out |= {f"far/{d}": stacked([t.far[d] for t in rows]) for d in DISTANCES}
    out |= {f"beyond/{kind}/{d}": stacked([t.beyond[kind, d] for t in rows]) for kind, d in rows[0].beyond}
    return out
