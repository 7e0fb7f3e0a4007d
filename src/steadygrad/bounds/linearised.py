"""The worst deviation of an attribution to first order: singular values, and signs in a box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.attributions.attribution import Attribution
from steadygrad.bounds import lanczos, signs
from steadygrad.bounds.path import path_of
from steadygrad.bounds.result import DeviationBound, Distance, cosine_bound, deviation
from steadygrad.bounds.signs import Form
from steadygrad.bounds.tangent import Tangent
from steadygrad.classifier import frozen
from steadygrad.derivatives import math_attention
from steadygrad.threat import Threat

__all__ = ["Effort", "Moves", "allowed_box", "linearised"]


@dataclass(frozen=True)
class Effort:
    """How much a bound may cost; see `AttributionDeviation`."""

    exact: int
    rank: int
    tolerance: float
    restarts: int
    steps: int
    units: int
    chunk: int


def allowed_box(x: Tensor, threat: Threat) -> tuple[Tensor, Tensor]:
    """The smallest box (N, *), (N, *) around the allowed inputs: within eps of x and within the bounds."""
    eps = threat.radius(x).view(-1, *[1] * (x.ndim - 1))
    low, high = threat.bounds
    return torch.maximum(x - eps, torch.full_like(x, low)).minimum(x), torch.minimum(
        x + eps, torch.full_like(x, high)
    ).maximum(x)


class Moves:
    """First-order changes of the maps, (N, D), as a linear function of unit changes of the input.

    l2: v of length 1 stands for the change eps v. linf: signs (N, D + 1) stand for a corner of the box,
    s_last (center - x) + s radius: with the last sign 1 every corner, and by symmetry no more.
    With `across` (N, D), only the part at right angles to these unit vectors is kept.
    """

    def __init__(self, tangent: Tangent, threat: Threat, across: Tensor | None) -> None:
        self.tangent, self.threat, self.across = tangent, threat, across
        self.eps = threat.radius(tangent.x)[:, None]
        if threat.norm == "linf":
            low, high = allowed_box(tangent.x, threat)
            self.shift = ((low + high) / 2 - tangent.x).flatten(1)
            self.half = ((high - low) / 2).flatten(1)

    @property
    def columns(self) -> int:
        return self.tangent.scale.shape[1] + (self.threat.norm == "linf")

    def change(self, v: Tensor) -> Tensor:
        """The change of the input (N, D)."""
        if self.threat.norm == "l2":
            return self.eps * v
        return self.shift * v[:, -1:] + self.half * v[:, :-1]

    def apply(self, v: Tensor) -> Tensor:
        return self.cut(self.tangent.apply(self.change(v)))

    def adjoint(self, u: Tensor) -> Tensor:
        return self.unit_parts(self.tangent.adjoint(self.cut(u)))

    def unit_parts(self, w: Tensor) -> Tensor:
        if self.threat.norm == "l2":
            return self.eps * w
        return torch.cat([self.half * w, (self.shift * w).sum(1, keepdim=True)], 1)

    def cut(self, u: Tensor) -> Tensor:
        return u if self.across is None else u - (u * self.across).sum(1, keepdim=True) * self.across

    def at(self, rows: Tensor) -> Moves:
        eps = self.threat.eps
        threat = self.threat.at(eps[rows.to(eps.device)]) if isinstance(eps, Tensor) and eps.ndim else self.threat
        return Moves(self.tangent.at(rows), threat, self.across[rows] if self.across is not None else None)

    def matrix(self) -> Tensor:
        """(N, D, columns) in float64."""
        jacobian = self.tangent.matrix().double()
        if self.across is not None:
            unit = self.across.double()
            jacobian = jacobian - unit[:, :, None] * (unit[:, None] @ jacobian)
        if self.threat.norm == "l2":
            return jacobian * self.eps[:, :, None]
        return torch.cat([jacobian * self.half[:, None].double(), jacobian @ self.shift[:, :, None].double()], 2)

    def along(self, unit: Tensor) -> Tensor:
        """The largest first-order change (N,) of the maps in the direction of unit (N, D): exact."""
        w = self.unit_parts(self.tangent.adjoint(unit)).double()
        size: Tensor = torch.linalg.vector_norm(w, ord=2 if self.threat.norm == "l2" else 1, dim=1)
        return size


class _Bend:
    """The part of the moves that the curvature makes, outside the span of left vectors (N, k, m) if given."""

    def __init__(self, moves: Moves, left: Tensor | None = None) -> None:
        self.moves, self.left = moves, left

    def _cut(self, u: Tensor) -> Tensor:
        u = self.moves.cut(u)
        if self.left is None:
            return u
        return u - torch.einsum("nk,nkd->nd", torch.einsum("nkd,nd->nk", self.left, u), self.left)

    def apply(self, v: Tensor) -> Tensor:
        return self._cut(self.moves.tangent.bend(self.moves.change(v)))

    def adjoint(self, u: Tensor) -> Tensor:
        return self.moves.unit_parts(self.moves.tangent.bend_back(self._cut(u)))

    def at(self, rows: Tensor) -> _Bend:
        return _Bend(self.moves.at(rows), self.left[rows] if self.left is not None else None)


def linearised(
    model: nn.Module,
    attribution: Attribution,
    x: Tensor,
    target: Tensor,
    threat: Threat,
    distance: Distance,
    seeds: Tensor,
    effort: Effort,
) -> DeviationBound:
    """The bound to first order of a batch x (N, *) with classes target (N,); see `AttributionDeviation`."""
    path = path_of(attribution)
    with frozen(model), math_attention():
        tangent = Tangent(model, path, x, target, effort.chunk)
        maps = tangent.maps
        norm = torch.linalg.vector_norm(maps.double(), dim=1)
        across = None
        if distance == "cosine":
            across = (maps / torch.where(norm > 0, norm, 1.0)[:, None]).to(maps.dtype)
        moves = Moves(tangent, threat, across)
        worst = _largest_l2 if threat.norm == "l2" else _largest_linf
        upper, residual, best, products = worst(moves, x, seeds, effort)
        parallel = moves.along(across) if across is not None else torch.zeros_like(upper)
        changed, first, lower = _reached(tangent, threat, distance, best)
        if distance == "cosine":
            # A change that shortens the map turns it further than its opposite.
            other = _reached(tangent, threat, distance, -best)
            better = other[2] > lower
            place = better.view(-1, *[1] * (x.ndim - 1))
            changed, first = torch.where(place, other[0], changed), torch.where(better[:, None], other[1], first)
            lower = torch.maximum(lower, other[2])
        # Besides: the product at the point found, for a cosine those along the map and at its opposite.
        forwards, backwards = tangent.passes(products + (1 if across is None else 3))
    if distance == "cosine":
        upper = cosine_bound(norm, upper, parallel)
    after = attribution(model, changed, target).flatten(1)
    rest = torch.linalg.vector_norm((after.double() - maps.double() - first.double()), dim=1)
    return DeviationBound(
        # Rounding of the products must not put a bound below what it bounds.
        upper=torch.maximum(upper, lower),
        lower=lower,
        attack=deviation(distance, maps, after),
        inputs=changed,
        kind="linearised",
        distance=distance,
        residual=residual,
        remainder=rest,
        forwards=forwards + len(path.nodes),
        backwards=backwards + len(path.nodes),
    )


def _reached(tangent: Tangent, threat: Threat, distance: Distance, change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The allowed point (N, *) nearest to a change (N, D), what it moves (N, D) to first order, and how far (N,)."""
    x = tangent.x
    changed = threat.constrain(x, x + change.view_as(x))
    first = tangent.apply((changed - x).flatten(1))
    return changed, first, deviation(distance, tangent.maps, tangent.maps.double() + first.double())


Worst = tuple[Tensor, Tensor, Tensor, Tensor]


def _largest_l2(moves: Moves, x: Tensor, seeds: Tensor, effort: Effort) -> Worst:
    """Bound (N,), the share of it (N,) owed to the residual, the change of the input (N, D) that comes
    closest, and the products (N,) taken.
    """
    start = randomness.normal(seeds, x).flatten(1)
    found = lanczos.largest(moves, start, steps=effort.rank, tolerance=effort.tolerance)
    value, residual, vector = found.top()
    best, length = torch.zeros_like(vector), torch.full_like(value, -1.0)
    products = 2 * found.steps
    for way in (vector, -vector):
        change = moves.change(way)
        for _ in range(3):
            # The bounds of the inputs may cut the change: go on to where the cut one points.
            going = length < value * (1 - effort.tolerance)
            if not bool(going.any()):
                break
            change = (moves.threat.constrain(x, x + change.view_as(x)) - x).flatten(1)
            moved = moves.apply(change / moves.eps.clamp_min(1e-30))
            size = torch.linalg.vector_norm(moved.double(), dim=1)
            better = going & (size > length)
            best, length = torch.where(better[:, None], change, best), torch.where(better, size, length)
            back = moves.adjoint(moved)
            back = back / torch.linalg.vector_norm(back, dim=1, keepdim=True).clamp_min(1e-30)
            # Far out and then back: the entries that the bounds cut give their share to the others.
            change = 2 * moves.change(back)
            products = products + 2 * going
    upper = value + residual
    return upper, residual / torch.where(upper > 0, upper, 1.0), best, products


def _largest_linf(moves: Moves, x: Tensor, seeds: Tensor, effort: Effort) -> Worst:
    """Bound (N,), the share of it (N,) owed to the residual, the change of the input (N, D) that comes
    closest, and the products (N,) taken.
    """
    columns = moves.columns
    exact = columns - 1 <= effort.exact
    if exact:
        form = Form(moves.matrix())
        rest = slack = form.rows.new_zeros(len(x))
        products = torch.full_like(seeds, columns - 1, device=x.device)
    else:
        form, rest, slack, products = _low_rank(moves, x, seeds, effort)
    like = x.double().flatten(1)[:, :1, None].expand(-1, effort.restarts, columns)
    least, vectors = signs.relax(form, randomness.normal(seeds, like, draw=2))
    # A rest at right angles to the form adds by squares, any other by its length.
    add = torch.hypot if form.stretch is None else torch.add
    upper, without = (add(least, columns**0.5 * size) for size in (rest + slack, rest))
    residual = (upper - without) / torch.where(upper > 0, upper, 1.0)
    noise = randomness.normal(seeds, like[:, :, :1].expand(-1, -1, effort.restarts), draw=3)
    best = signs.ascend(form, noise @ vectors).to(x.dtype)
    if not exact:
        for _ in range(3):  # with the operator itself
            best = signs.sign(moves.adjoint(moves.apply(best)))
            products = products + 2
    return upper, residual, moves.change(best * best[:, -1:]), products


def _low_rank(moves: Moves, x: Tensor, seeds: Tensor, effort: Effort) -> tuple[Form, Tensor, Tensor, Tensor]:
    """A form of low rank plus diagonal, the largest singular value (N,) of the rest, its residual, the products."""
    columns = moves.columns
    like = x.flatten(1)[:, :1].expand(-1, columns)
    parts = _diagonal(moves)

    def finished(rows: Tensor, left: Tensor, right: Tensor, band: Tensor) -> Tensor:
        if band.shape[1] % 4 or band.shape[1] < 8:
            return torch.zeros_like(rows, dtype=torch.bool)
        form = Form(band @ right.double(), left.double(), *(None if p is None else p[rows] for p in parts))
        corner = signs.sign(torch.linalg.svd(band, full_matrices=False).Vh[:, :1] @ right.double())
        reached = torch.linalg.vector_norm(form.apply(corner)[:, 0], dim=1)
        # The newest entries of the band are about as large as what is still to come.
        newest = band[:, -3:].abs().amax((1, 2))
        small: Tensor = columns**0.5 * newest <= 5 * effort.tolerance * reached
        return small

    done = lanczos.bidiagonalize(_Bend(moves), randomness.normal(seeds, like), effort.rank, finished)
    form = Form(done.factor, done.left.double(), *parts)
    start = randomness.normal(seeds, like, draw=1)
    # Below this the rest adds less than a hundred-thousandth to the bound; rounding noise is far below.
    enough = 1e-5 * torch.linalg.vector_norm(done.band.flatten(1), dim=1) / columns**0.5
    rest = lanczos.largest(_Bend(moves, done.left), start, steps=8, tolerance=0.1, enough=enough)
    value, residual, _ = rest.top()
    return form, value, residual, 2 * (done.steps + rest.steps)


def _diagonal(moves: Moves) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    across = moves.across.double() if moves.across is not None else None
    if not moves.tangent.path.scaled:
        return None, None, across
    stretch = moves.tangent.stretch.double()
    return stretch * moves.half.double(), stretch * moves.shift.double(), across
