"""The worst deviation of an attribution to first order: singular values in an l2 ball, corners in a box."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.bounds.bound import BOUNDS, Bound
from steadygrad.bounds.linearized import corners, lanczos
from steadygrad.bounds.linearized.corners import FactoredMatrix
from steadygrad.bounds.linearized.jacobian import BallJacobian, Jacobian
from steadygrad.bounds.path import path_of
from steadygrad.bounds.result import DeviationBound, cosine_bound, deviation
from steadygrad.classifier import frozen
from steadygrad.derivatives import math_attention
from steadygrad.threat import Threat, per_sample
from steadygrad.values import Count, Fraction

_TURNS = 4
"""Steps of a search for the map that turns furthest on the tangent, from the changes that move it furthest."""


@BOUNDS.register(
    "linearized",
    summary="how far the map moves to first order: largest singular values, or corners of the box by a relaxation",
    reference="after Wang and Kong 2023, arXiv 2303.00340",
    cost="1 map + tens of products with the Jacobian (small inputs: one for each entry), each 1 backward per node",
    soundness="linearized",
    order=2,
    norms=("linf", "l2"),
)
@dataclass(frozen=True)
class LinearizedDeviation(Bound):
    """Bounds the deviation of the tangent of the map: an upper bound to first order only.

    For any twice differentiable model; the formulas are on the concepts page.

    Args:
        attribution, distance, restarts, chunk: as for `Bound`.
        exact: inputs with at most so many entries get their exact Jacobian (linf), which gains little here.
        rank: most Lanczos steps, of two backwards each.
        tolerance: residual of the largest singular value at which they stop, relative to it.

    Source: after Wang and Kong 2023, arXiv:2303.00340.

    >>> from steadygrad import linf, smooth
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x, target = torch.rand(2, 4), torch.tensor([0, 1])
    >>> bound = LinearizedDeviation()(smooth(model, 5.0), x, target, linf(0.01))
    >>> bool((bound.lower <= bound.upper).all())
    True
    """

    rank: Count = 64
    tolerance: Fraction = 1e-3

    def check_model(self, model: nn.Module, x: Tensor, target: Tensor) -> None:
        super().check_model(model, x, target)
        self.attribution.require_curvature(model, x, target)

    def bound_batch(self, model: nn.Module, x: Tensor, target: Tensor, threat: Threat, seeds: Tensor) -> DeviationBound:
        path = path_of(self.attribution)
        with frozen(model), math_attention():
            jacobian = Jacobian(model, path, x, target, self.points(x))
            maps = jacobian.maps
            norm = torch.linalg.vector_norm(maps.double(), dim=1)
            unit = (maps / torch.where(norm > 0, norm, 1.0)[:, None]).to(maps.dtype)
            across = unit if self.distance == "cosine" else None
            ball = BallJacobian(jacobian, threat, across)
            worst = self._largest_l2(ball, seeds) if threat.norm == "l2" else self._largest_linf(ball, seeds)
            upper = worst.bound
            found = self._reached(ball, worst.change)
            if across is not None:
                upper = cosine_bound(norm, upper, ball.along(across))
                # What moves furthest need not turn furthest: a change that shortens the map turns it more.
                found = self._turned(ball, found)
                found = found.or_(self._turned(ball, self._reached(ball, -worst.change)))
            inputs, first, lower = found.inputs, found.first, found.far
            # Besides: the product at the point found, for a cosine those along the map and of the two searches.
            forwards, backwards = jacobian.passes(worst.products + (1 if across is None else 3 + 4 * _TURNS))
        after = self.attribution(model, inputs, target).flatten(1)
        return DeviationBound(
            # Rounding of the products must not put a bound below what it bounds.
            upper=torch.maximum(upper, lower),
            lower=lower,
            attack=deviation(self.distance, maps, after),
            inputs=inputs,
            kind="linearized",
            distance=self.distance,
            residual=worst.residual,
            remainder=torch.linalg.vector_norm((after.double() - maps.double() - first.double()), dim=1),
            forwards=forwards + len(path.nodes),
            backwards=backwards + len(path.nodes),
        )

    def _reached(self, ball: BallJacobian, change: Tensor) -> _Reached:
        """The allowed point nearest to a change (N, D)."""
        jacobian = ball.jacobian
        inputs = ball.threat.constrain(jacobian.x, jacobian.x + change.view_as(jacobian.x))
        first = jacobian.apply((inputs - jacobian.x).flatten(1))
        far = deviation(self.distance, jacobian.maps, jacobian.maps.double() + first.double())
        return _Reached(inputs, first, far)

    def _turned(self, ball: BallJacobian, best: _Reached) -> _Reached:
        """The best point that steps across the ball along the slope of the deviation lead to."""
        jacobian, at = ball.jacobian, best
        maps = jacobian.maps.double()
        for _ in range(_TURNS):
            with torch.enable_grad():
                moved = (maps + at.first.double()).requires_grad_()
                (slope,) = torch.autograd.grad(deviation(self.distance, maps, moved).sum(), moved)
            # The scale of the slope says nothing.
            slope = torch.nan_to_num(slope / slope.abs().amax(1, keepdim=True).clamp_min(1e-300)).to(jacobian.x.dtype)
            way = ball.threat.steepest(jacobian.adjoint(slope).view_as(jacobian.x)).flatten(1)
            at = self._reached(ball, 2 * ball.eps * way)
            best = best.or_(at)
        return best

    def _largest_l2(self, ball: BallJacobian, seeds: Tensor) -> _Worst:
        x = ball.jacobian.x
        start = randomness.normal(seeds, x).flatten(1)
        found = lanczos.largest(ball, start, steps=self.rank, tolerance=self.tolerance)
        value, residual, vector = found.top()
        best, length = torch.zeros_like(vector), torch.full_like(value, -1.0)
        products = 2 * found.steps
        for way in (vector, -vector):
            change = ball.change(way)
            for _ in range(3):
                # The bounds of the inputs may cut the change: go on to where the cut one points.
                going = length < value * (1 - self.tolerance)
                if not bool(going.any()):
                    break
                change = (ball.threat.constrain(x, x + change.view_as(x)) - x).flatten(1)
                moved = ball.apply(change / ball.eps.clamp_min(1e-30))
                size = torch.linalg.vector_norm(moved.double(), dim=1)
                better = going & (size > length)
                best, length = torch.where(better[:, None], change, best), torch.where(better, size, length)
                back = ball.adjoint(moved)
                back = back / torch.linalg.vector_norm(back, dim=1, keepdim=True).clamp_min(1e-30)
                # Far out and then back: the entries that the bounds cut give their share to the others.
                change = 2 * ball.change(back)
                products = products + 2 * going
        upper = value + residual
        return _Worst(upper, residual / torch.where(upper > 0, upper, 1.0), best, products)

    def _largest_linf(self, ball: BallJacobian, seeds: Tensor) -> _Worst:
        x, columns = ball.jacobian.x, ball.columns
        exact = columns - 1 <= self.exact
        if exact:
            matrix = FactoredMatrix(ball.matrix())
            rest = slack = matrix.rows.new_zeros(len(x))
            products = torch.full_like(seeds, columns - 1, device=x.device)
        else:
            matrix, rest, slack, products = self._low_rank(ball, seeds)
        least, best = corners.longest(matrix, seeds, self.restarts)
        # A rest at right angles to the matrix adds by squares, any other by its length.
        add = torch.hypot if matrix.diagonal is None else torch.add
        upper, without = (add(least, columns**0.5 * size) for size in (rest + slack, rest))
        residual = (upper - without) / torch.where(upper > 0, upper, 1.0)
        best = best.to(x.dtype)
        if not exact:
            for _ in range(3):  # with the operator itself
                best = corners.sign(ball.adjoint(ball.apply(best)))
                products = products + 2
        return _Worst(upper, residual, ball.change(best * best[:, -1:]), products)

    def _low_rank(self, ball: BallJacobian, seeds: Tensor) -> tuple[FactoredMatrix, Tensor, Tensor, Tensor]:
        """The Jacobian as low rank plus diagonal; largest singular value (N,) of the rest, its residual, products."""
        jacobian, columns = ball.jacobian, ball.columns
        like = jacobian.x.flatten(1)[:, :1].expand(-1, columns)
        across = ball.across.double() if ball.across is not None else None
        diagonal = column = None
        if jacobian.path.scaled:
            diagonal, column = (jacobian.diagonal.double() * v.double() for v in (ball.half, ball.shift))

        def finished(rows: Tensor, left: Tensor, right: Tensor, band: Tensor) -> Tensor:
            if band.shape[1] % 4 or band.shape[1] < 8:
                return torch.zeros_like(rows, dtype=torch.bool)
            parts = (None if p is None else p[rows] for p in (diagonal, column, across))
            corner = corners.sign(torch.linalg.svd(band, full_matrices=False).Vh[:, :1] @ right.double())
            moved = FactoredMatrix(band @ right.double(), left.double(), *parts).apply(corner)
            reached = torch.linalg.vector_norm(moved[:, 0], dim=1)
            # The newest entries of the band are about as large as what is still to come.
            newest = band[:, -3:].abs().amax((1, 2))
            small: Tensor = columns**0.5 * newest <= 5 * self.tolerance * reached
            return small

        curvature = replace(ball, curvature=True)
        done = lanczos.bidiagonalize(curvature, randomness.normal(seeds, like), self.rank, finished)
        start = randomness.normal(seeds, like, draw=1)
        # Below this the rest adds less than a hundred-thousandth to the bound; rounding noise is far below.
        enough = 1e-5 * torch.linalg.vector_norm(done.band.flatten(1), dim=1) / columns**0.5
        rest = lanczos.largest(replace(curvature, outside=done.left), start, steps=8, tolerance=0.1, enough=enough)
        value, residual, _ = rest.top()
        matrix = FactoredMatrix(done.factor, done.left.double(), diagonal, column, across)
        return matrix, value, residual, 2 * (done.steps + rest.steps)


class _Reached(NamedTuple):
    """Allowed points, what they move to first order, and how far."""

    inputs: Tensor  # (N, *)
    first: Tensor  # (N, D)
    far: Tensor  # (N,)

    def or_(self, other: _Reached) -> _Reached:
        """Whichever is further, sample by sample."""
        better = other.far > self.far
        return _Reached(*(torch.where(per_sample(better, o), o, s) for s, o in zip(self, other, strict=True)))


class _Worst(NamedTuple):
    """The largest first-order change of the maps over the ball."""

    bound: Tensor  # (N,) an upper bound on its length
    residual: Tensor  # (N,) the share of the bound that is owed to the residual of singular values
    change: Tensor  # (N, D) the change of the input that comes closest
    products: Tensor  # (N,) taken with the Jacobian
