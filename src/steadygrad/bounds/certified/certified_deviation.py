"""The worst deviation of an attribution, for every point of the ball."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad.attributions.attribution import Forward
from steadygrad.bounds.bound import BOUNDS, Bound
from steadygrad.bounds.certified.ball import ball_of
from steadygrad.bounds.certified.intervals import Interval
from steadygrad.bounds.certified.remainder import map_intervals
from steadygrad.bounds.certified.rounding import unit_of
from steadygrad.bounds.certified.tracing import trace
from steadygrad.bounds.linearized import corners
from steadygrad.bounds.linearized.jacobian import BallJacobian, Jacobian
from steadygrad.bounds.path import path_of
from steadygrad.bounds.result import DeviationBound, cosine_bound, deviation
from steadygrad.classifier import frozen
from steadygrad.derivatives import math_attention
from steadygrad.smoothing import Lead, lead_of
from steadygrad.threat import Threat, per_sample
from steadygrad.values import Whole


@BOUNDS.register(
    "certified",
    summary="how far the map moves for any allowed input: intervals, tightened by linear bounds and exact derivatives",
    reference="Zhang et al. 2018, arXiv 1811.00866 (CROWN); the remainder of second order is our own",
    cost="a few forwards; for inputs of up to `exact` entries 2 backwards for each entry and node; "
    "restarts / 4 x steps x 3 maps of search",
    soundness="certified",
    order=2,
    norms=("linf", "l2"),
)
@dataclass(frozen=True)
class CertifiedDeviation(Bound):
    """Bounds the deviation of the map itself: it holds for every allowed input.

    For models of the layers that are listed in `docs/concepts/bounds.md`. The smaller of two: the length of
    the largest change of every entry, and, where the exact Jacobian is affordable, the largest first-order
    change plus the length of a bound on all that it leaves out.

    Args:
        attribution, distance, restarts, chunk: as for `Bound`.
        exact: inputs with at most so many entries get their exact Jacobian, which matters at small radii.
        steps: ascent steps of the search for a lower value on the model itself.
        units: layers with more units keep the bounds of interval arithmetic; more is tighter and slower.

    Source: the linear bounds after Zhang et al. 2018, arXiv:1811.00866; the formulas are on the concepts page.

    >>> from steadygrad import linf
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x, target = torch.rand(2, 4), torch.tensor([0, 1])
    >>> bound = CertifiedDeviation(steps=2)(model, x, target, linf(0.01))
    >>> bool((bound.lower <= bound.upper).all())
    True
    """

    exact: Whole = 1024
    steps: Whole = 10
    units: Whole = 2048

    def bound_batch(self, model: nn.Module, x: Tensor, target: Tensor, threat: Threat, seeds: Tensor) -> DeviationBound:
        path = path_of(self.attribution)
        unit_of(model, x)
        with frozen(model), math_attention():
            network = trace(model, x)
            inputs, ball = x.double(), ball_of(x, threat)
            maps, hessian = map_intervals(network, path, ball, target, self.units, self.exact, self.chunk)
            starts = [threat.random(inputs, seeds, draw) for draw in range(max(1, self.restarts // 4))]
            first_order: Tensor | None = None
            forwards = backwards = torch.zeros_like(target)
            if hessian is not None:
                jacobian = Jacobian(network, path, inputs, target, self.points(x), hessian)
                first_order, change, maps = self._first_order(BallJacobian(jacobian, threat), maps, seeds)
                # Twice one backward for every entry of the input.
                backwards = torch.full_like(target, 2 * len(path.nodes) * x[0].numel())
                change = change.view_as(inputs)
                starts = [*(threat.constrain(inputs, inputs + c) for c in (change, -change)), *starts]
            points, far, taken = self._farthest(network, lead_of(model, x), inputs, x.dtype, target, threat, starts)
        farthest = torch.maximum(maps.high - maps.center, maps.center - maps.low).clamp_min(0)
        upper = torch.linalg.vector_norm(farthest.flatten(1), dim=1)
        if first_order is not None:
            upper = torch.minimum(upper, first_order)
        upper = upper * (1 + 1e-9)
        if self.distance == "cosine":
            norm = torch.linalg.vector_norm(maps.center.flatten(1), dim=1)
            upper = cosine_bound(norm, upper, upper, upper)
        nodes = len(path.nodes)
        return DeviationBound(
            upper=upper,
            lower=far,
            attack=far,
            inputs=points.to(x.dtype),
            kind="certified",
            distance=self.distance,
            residual=torch.zeros_like(upper),
            low=maps.low,
            high=maps.high,
            forwards=forwards + nodes * (1 + taken),
            backwards=backwards + nodes * (1 + taken),
        )

    def _first_order(self, jacobian: BallJacobian, maps: Interval, seeds: Tensor) -> tuple[Tensor, Tensor, Interval]:
        """A bound (N,) from the Jacobian and the rest, a change (N, D) that comes close, narrower maps."""
        matrix = jacobian.matrix()  # (N, D, columns)
        rest = maps.rest.flatten(1) + 1e-9 * maps.radius.flatten(1)  # the Jacobian's rounding is far below this share
        if jacobian.threat.norm == "l2":
            _, values, right = torch.linalg.svd(matrix, full_matrices=False)
            largest, best = values[:, 0], right[:, 0]
            across = torch.linalg.vector_norm(matrix, dim=2)
            shift = torch.zeros_like(across)
        else:
            largest, best = corners.longest(corners.FactoredMatrix(matrix), seeds, self.restarts)
            best = best * best[:, -1:]
            across, shift = matrix[:, :, :-1].abs().sum(2), matrix[:, :, -1]
        middle = maps.center.flatten(1) + shift
        low, high = (v.view_as(maps.center) for v in (middle - across - rest, middle + across + rest))
        return largest + torch.linalg.vector_norm(rest, dim=1), jacobian.change(best), maps.cut(low, high)

    def _farthest(
        self,
        judge: Forward,
        lead: Lead,
        x: Tensor,
        own: torch.dtype,
        target: Tensor,
        threat: Threat,
        starts: list[Tensor],
    ) -> tuple[Tensor, Tensor, int]:
        """The best allowed points (N, *) found, how far (N,) they move the maps of `judge`, and the maps taken.

        Ascends the deviation of the maps of the models that lead, in their `own` type, by signed or normalized steps
        that halve, from the given points. Every point counts as `judge` sees it.
        """
        maps = self.attribution.maps
        before = maps(judge, x, target, create_graph=False)
        origin = before.to(own)
        best, far = x, torch.zeros(len(x), dtype=torch.float64, device=x.device)
        taken = 1

        def look(points: Tensor) -> None:
            nonlocal best, far, taken
            moved = deviation(self.distance, before, maps(judge, points, target, create_graph=False))
            better = moved > far
            best = torch.where(per_sample(better, x), points, best)
            far = torch.maximum(far, moved)
            taken += 1

        eps = per_sample(threat.radius(x), x)
        for points in starts:
            look(points)
            for step in range(self.steps):
                with torch.enable_grad():
                    leaf = points.to(own).detach().requires_grad_()
                    followed = lead((step + 0.5) / self.steps)
                    loss = self._loss(origin, maps(followed, leaf, target, create_graph=True))
                    slope = torch.autograd.grad(loss.sum(), leaf, allow_unused=True)[0] if loss.requires_grad else None
                taken += 2
                if slope is None:
                    break
                # Long steps reach the corners, where a convex deviation is largest; later ones settle.
                way = threat.steepest(torch.nan_to_num(slope)).double() * eps * 2.0 ** (1 - step // 2)
                points = threat.constrain(x, points + way)
                look(points)
        return best, far, taken

    def _loss(self, before: Tensor, after: Tensor) -> Tensor:
        a, b = before.flatten(1), after.flatten(1)
        if self.distance == "euclidean":
            return (a - b).square().sum(1)
        return -torch.nn.functional.cosine_similarity(a, b, dim=1, eps=1e-30)
