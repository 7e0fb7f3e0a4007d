"""One attack on the attributions of one batch: passes, the best point of each sample, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from steadygrad.arguments import arithmetic
from steadygrad.attacks.losses import margin
from steadygrad.attacks.maps.map_losses import MAP_LOSSES, Reference
from steadygrad.attributions import ATTRIBUTIONS
from steadygrad.classifier import check_inputs, check_logits
from steadygrad.derivatives import math_attention
from steadygrad.memory import at_once
from steadygrad.threat import Threat, per_sample

if TYPE_CHECKING:
    from steadygrad.attacks.maps.attribution_attacks import ExplanationAttack


@dataclass(frozen=True)
class AttributionResult:
    """What an attack on an attribution found, as judged by the engine.

    Attributes:
        inputs: the changed inputs (N, *), of unchanged prediction; the clean ones where no map moved.
        deviation: (N,) how far the map moved, in the unit of the attack's measure; 0 where it did not.
        moved: (N,) bool; the map moved while the prediction did not.
        prediction: (N,) the class predicted for the clean and for the changed input.
        target: (N,) the class explained.
        maps, clean_maps: (N, *) of the changed and of the clean inputs.
        distance: (N,) between the inputs, in the threat's norm.
        forwards, backwards: (N,) passes that each sample needs, the judge's included; not those that are made again
            to save memory, nor the check of the curvature, on at most four samples.
        zero_gradient: (N,) bool; there was no direction to follow at some point of the search.
        noise: the same for random points of the same threat, the baseline; None if that was left out.
    """

    inputs: Tensor
    deviation: Tensor
    moved: Tensor
    prediction: Tensor
    target: Tensor
    maps: Tensor
    clean_maps: Tensor
    distance: Tensor
    forwards: Tensor
    backwards: Tensor
    zero_gradient: Tensor
    noise: AttributionResult | None = None

    @arithmetic
    def similarity(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """A similarity (N,) of the clean and the changed maps, such as `similarity.kendall`."""
        return function(self.clean_maps, self.maps)


class ExplanationRun:
    """The state of one attack on one batch; `lead` gives the model whose derivatives lead the way.

    An attack asks for slopes and looks at points of its choice. The run keeps, of the allowed points that leave
    the prediction as it was, the one whose map has moved furthest, and at the end explains and classifies it
    again in another batch composition.
    """

    def __init__(
        self,
        attack: ExplanationAttack,
        model: nn.Module,
        x: Tensor,
        target: Tensor | None,
        threat: Threat,
        seeds: Tensor,
        aim: Tensor | None = None,
    ) -> None:
        self.model, self.attribution, self.x, self.threat, self.seeds = model, attack.attribution, x, threat, seeds
        self.objective = MAP_LOSSES[attack.objective]
        self.forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.zero_gradient = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.found = x.clone()
        # Methods made of gradients go back through the model once for each forward; others do not.
        self._order = next((row.order for row in ATTRIBUTIONS if row.method is type(self.attribution)), 1)
        with torch.no_grad():
            logits = model(x)
        check_logits(logits, len(x))
        check_inputs(x, target, threat.bounds, logits.shape[1], "target")
        self.prediction = logits.argmax(1)
        self.target = self.prediction if target is None else target.to(x.device, torch.int64)
        clean, _, passes = self._explain(model, x, self.target)
        self._count(1 + passes, passes)
        # A graph holds the points of its samples: as many samples at once as memory and the attribution's chunk allow.
        # Where those of one sample are too many, their passes are made again, a few points at a time.
        chunk = getattr(self.attribution, "chunk", None)
        points = at_once(len(x) * max(1, passes) if chunk is None else chunk, x.shape[1:], x.device, order=2)
        self._group, self._again = max(1, points // max(1, passes)), points < passes
        self.attribution.check_finite(clean)
        self.reference = Reference(clean, attack.top_share, aim)
        self.best = self.objective.rank(clean, self.reference)
        self.lead = attack.follow(model, x, self.target)

    def _count(self, forwards: int, explained: int, rows: slice | Tensor = slice(None), *, graph: bool = False) -> None:
        """Passes of some samples: their forwards, of which `explained` were the attribution's."""
        self.forwards[rows] += forwards
        self.backwards[rows] += explained * (self._order > 0) + (forwards if graph else 0)

    def _explain(
        self, model: nn.Module, points: Tensor, target: Tensor, graph: bool = False
    ) -> tuple[Tensor, Tensor | None, int]:
        """Maps (A, *) of points, the logits there if the attribution asked for them, and its forwards."""
        seen: Tensor | None = None
        passes = 0

        def forward(inputs: Tensor) -> Tensor:
            nonlocal seen, passes
            logits: Tensor = model(inputs)
            passes += len(inputs)
            if inputs.data_ptr() == points.data_ptr() and inputs.shape == points.shape:
                seen = logits
            return logits

        maps = self.attribution.maps(forward, points, target, create_graph=graph)
        return maps, seen, passes // len(points)

    def look(self, points: Tensor) -> None:
        """Explain and classify points (N, *) without following them; the best are remembered."""
        maps, logits = self._see(points, self.target)
        self.remember(points, maps, logits)

    def _see(self, points: Tensor, target: Tensor, rows: slice | Tensor = slice(None)) -> tuple[Tensor, Tensor]:
        """Maps and logits of points without a graph, at the cost of `rows`: one or several points for each."""
        maps, logits, passes = self._explain(self.model, points, target)
        forwards = passes
        if logits is None:
            with torch.no_grad():
                logits = self.model(points)
            forwards += 1
        each = len(points) // len(self.x[rows])
        self._count(each * forwards, each * passes, rows)
        return maps.detach(), logits.detach()

    def gradient(self, points: Tensor, share: float = 1.0) -> Tensor:
        """The slope (N, *) of the loss at points (N, *), through the attribution of `lead(share)`.

        Where the prediction has changed it is that of the way back to the old one.
        """
        followed, groups = self.lead(share), range(0, len(points), self._group)
        parts = [self._slope(followed, points, slice(first, first + self._group)) for first in groups]
        slope, maps, logits = (torch.cat(column) for column in zip(*parts, strict=True))
        if followed is self.model:
            self.remember(points, maps, logits)
        else:
            self.look(points)
        slope = torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)
        self.zero_gradient |= (slope == 0).flatten(1).all(1)
        return slope

    def _slope(self, followed: nn.Module, points: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        leaf, target = points[rows].detach().requires_grad_(), self.target[rows]
        with torch.enable_grad(), math_attention():
            maps, logits, passes = self._explain(followed, leaf, target, graph=not self._again)
            if self._again:
                maps = maps.detach().requires_grad_()
            else:
                self.attribution.check_graph(maps)
            forwards = passes
            if logits is None or self._again:
                logits = followed(leaf)
                forwards += 1
            self._count(forwards, passes, rows, graph=True)
            loss = self.objective.loss(maps, self.reference.rows(rows))
            changed = logits.argmax(1) != self.prediction[rows]
            # A sum: a mean would tie the samples of a batch together.
            total = torch.where(changed, -margin(logits, self.prediction[rows]).to(loss.dtype), loss).sum()
            if not self._again:
                (slope,) = torch.autograd.grad(total, leaf)
            else:
                v, slope = torch.autograd.grad(total, (maps, leaf))
                if bool(v.any()):
                    slope = slope + self.attribution.pulled_back(followed, leaf, target, v)
        return slope, maps.detach(), logits.detach()

    def begin(self, beside: AttributionResult) -> None:
        """Keep the points that another search has found for the same samples, which costs nothing."""
        rank = self.objective.rank(beside.maps, self.reference)
        better = beside.moved & (beside.prediction == self.prediction) & (rank > self.best)
        self.best = torch.where(better, rank, self.best)
        self.found = torch.where(per_sample(better, self.x), beside.inputs, self.found)

    def remember(self, points: Tensor, maps: Tensor, logits: Tensor) -> None:
        """Keep the best of points (N, *) that were seen with their maps and logits; every point passes here."""
        rank = self.objective.rank(maps, self.reference)
        same = (logits.argmax(1) == self.prediction) & torch.isfinite(logits).all(1)
        # A rank that is no number is above none.
        better = same & (rank > self.best) & self.threat.allows(self.x, points)
        self.best = torch.where(better, rank, self.best)
        self.found = torch.where(per_sample(better, points), points, self.found)

    def result(self, noise: AttributionResult | None = None) -> AttributionResult:
        """Judge what was remembered, in reverse order beside the clean inputs, and close the run."""
        rows = torch.arange(len(self.x), device=self.x.device).flip(0)
        columns: tuple[list[Tensor], ...] = ([], [], [], [])
        # In halves, so that the doubled batch needs no more memory than the search did.
        for part in rows.chunk(2):
            both = torch.cat([self.found[part], self.x[part]])
            maps, logits = self._see(both, self.target[part].repeat(2), part)
            for column, value in zip(columns, (*maps.chunk(2), *logits.argmax(1).chunk(2)), strict=True):
                column.append(value)
        maps, clean_maps, label, prediction = (torch.cat(column).flip(0) for column in columns)
        reference = Reference(clean_maps, self.reference.k, self.reference.aim)
        deviation = self.objective.deviation(maps, reference)
        stands = (label == prediction) & (prediction == self.prediction) & self.threat.allows(self.x, self.found)
        stands &= torch.isfinite(maps).flatten(1).all(1) & (deviation >= 0)
        # In another batch composition the map of the clean input may differ by its rounding.
        stands &= (self.found != self.x).flatten(1).any(1)
        place = per_sample(stands, self.x)
        inputs = torch.where(place, self.found, self.x)
        deviation = torch.where(stands, deviation, 0.0)
        return AttributionResult(
            inputs=inputs,
            deviation=deviation,
            moved=deviation > 0,
            prediction=self.prediction,
            target=self.target,
            maps=torch.where(place, maps, clean_maps),
            clean_maps=clean_maps,
            distance=self.threat.distance(inputs - self.x),
            forwards=self.forwards,
            backwards=self.backwards,
            zero_gradient=self.zero_gradient,
            noise=noise,
        )
