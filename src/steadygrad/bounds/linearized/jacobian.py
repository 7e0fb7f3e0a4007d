"""The Jacobian of an attribution without its entries: products with vectors, or with the changes of a threat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadygrad.attributions.attribution import Forward, score
from steadygrad.bounds.box import allowed_box
from steadygrad.bounds.path import Path
from steadygrad.derivatives import gradient
from steadygrad.threat import Threat


@dataclass
class Jacobian:
    """The map g (N, D) of a batch and products with its Jacobian J = diag(s' h) + diag(s) M.

    M, a sum of Hessians, is symmetric: one backward through the graph of the gradients serves both
    J and its transpose. The graph of up to `chunk` points is kept; with more, each product builds it
    anew, `chunk` points at a time, which bounds the memory.

    The model must be frozen and attention on the math kernel while this is in use.
    """

    forward: Forward
    path: Path
    x: Tensor
    target: Tensor
    chunk: int
    hessian: Tensor | None = None  # M (N, D, D), if that has been computed

    def __post_init__(self) -> None:
        path, self.x = self.path, self.x.detach()
        self.scale = path.scale(self.x).flatten(1)  # s, (N, D)
        self._kept = list(self._graphs()) if len(path.nodes) * len(self.x) <= self.chunk else None
        mean = torch.zeros_like(self.scale)  # h, (N, D)
        for rows, slopes, _ in self._kept or self._graphs():
            mean += self._collect(rows, slopes.detach(), path.weights)
        self.diagonal = mean if path.scaled else torch.zeros_like(mean)  # s' h, (N, D)
        self.maps = self.scale * mean  # g, (N, D)

    def at(self, rows: Tensor) -> Jacobian:
        """The same for some of the samples."""
        return replace(self, x=self.x[rows], target=self.target[rows], hessian=None)

    def passes(self, products: Tensor) -> tuple[Tensor, Tensor]:
        """Forwards and backwards (N,) that a sample needs for so many products (N,); not those that are made again."""
        nodes = len(self.path.nodes)
        return torch.full_like(products, nodes), nodes * (1 + products)

    def apply(self, u: Tensor) -> Tensor:
        """J u (N, D) for directions u (N, D)."""
        return self.curvature(u) + self.diagonal * u

    def adjoint(self, v: Tensor) -> Tensor:
        """J^T v (N, D) for v (N, D)."""
        return self.curvature_adjoint(v) + self.diagonal * v

    def curvature(self, u: Tensor) -> Tensor:
        """diag(s) M u: the part of J that is close to low rank."""
        return self.scale * self._hessian_product(u)

    def curvature_adjoint(self, v: Tensor) -> Tensor:
        """M diag(s) v."""
        return self._hessian_product(self.scale * v)

    def matrix(self) -> Tensor:
        """J itself (N, D, D): D products, or none where M is known."""
        if self.hessian is not None:
            return torch.diag_embed(self.diagonal) + self.scale[:, :, None] * self.hessian
        count, entries = self.scale.shape
        out = self.scale.new_empty(count, entries, entries)
        for j in range(entries):
            unit = torch.zeros_like(self.scale)
            unit[:, j] = 1
            out[:, :, j] = self.apply(unit)
        return out

    def _hessian_product(self, u: Tensor) -> Tensor:
        """M u, with M = sum_k w_k a_k H_k."""
        out = torch.zeros_like(u)
        weights = [w * a for w, a in zip(self.path.weights, self.path.nodes)]
        for rows, slopes, points in self._kept or self._graphs():
            if slopes.requires_grad:
                direction = u.repeat(len(self.path.nodes), 1)[rows].view_as(points)
                keep = self._kept is not None
                product = torch.autograd.grad(slopes, points, direction, retain_graph=keep, allow_unused=True)[0]
                if product is not None:
                    out += self._collect(rows, product, weights)
        return out

    def _graphs(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Slices of the K N points, with the gradients there as functions of the points, and the points."""
        every = self.path.points(self.x).flatten(0, 1)  # (K N, *)
        classes = self.target.repeat(len(self.path.nodes))
        for first in range(0, len(every), self.chunk):
            rows = slice(first, first + self.chunk)
            points, labels = every[rows].detach().requires_grad_(), classes[rows]

            def scores(p: Tensor, labels: Tensor = labels) -> Tensor:
                return score(self.forward(p), labels, self.path.of)

            yield rows, gradient(scores, points, create_graph=True)[1], points

    def _collect(self, rows: slice, values: Tensor, weights: list[float] | tuple[float, ...]) -> Tensor:
        """Sum (N, D) over the path of weight times value (n, *), for a slice of the K N points."""
        shares = torch.tensor(weights, dtype=self.x.dtype, device=self.x.device).repeat_interleave(len(self.x))
        flat = values.flatten(1) * shares[rows, None]
        which = torch.arange(len(shares), device=flat.device)[rows] % len(self.x)
        return torch.zeros_like(self.scale).index_add_(0, which, flat)


@dataclass
class BallJacobian:
    """First-order changes of the maps, (N, D), as a linear function of the allowed changes of the input.

    l2: v of length 1 stands for the change eps v. linf: signs (N, D + 1) stand for a corner of the box,
    s_last (center - x) + s radius: with the last sign 1 every corner, and by symmetry no more.
    """

    jacobian: Jacobian
    threat: Threat
    across: Tensor | None = None  # unit vectors (N, D); only the part of the changes at right angles to them is kept
    curvature: bool = False  # keep only what the curvature makes, diag(s) M
    outside: Tensor | None = None  # orthonormal vectors (N, k, D); only the part outside their span is kept

    def __post_init__(self) -> None:
        x = self.jacobian.x
        self.eps = self.threat.radius(x)[:, None]
        self.columns = x[0].numel()
        if self.threat.norm == "linf":
            low, high = allowed_box(x, self.threat)
            self.shift = ((low + high) / 2 - x).flatten(1)
            self.half = ((high - low) / 2).flatten(1)
            self.columns += 1

    def change(self, v: Tensor) -> Tensor:
        """The change of the input (N, D) that v (N, columns) stands for."""
        if self.threat.norm == "l2":
            return self.eps * self._masked(v)
        return self.shift * v[:, -1:] + self.half * v[:, :-1]

    def apply(self, v: Tensor) -> Tensor:
        """The change of the maps (N, D) for v (N, columns)."""
        change = self.change(v)
        return self._cut(self.jacobian.curvature(change) if self.curvature else self.jacobian.apply(change))

    def adjoint(self, u: Tensor) -> Tensor:
        """The transpose (N, columns) of `apply`, for u (N, D)."""
        u = self._cut(u)
        return self._columns(self.jacobian.curvature_adjoint(u) if self.curvature else self.jacobian.adjoint(u))

    def _columns(self, w: Tensor) -> Tensor:
        if self.threat.norm == "l2":
            return self.eps * self._masked(w)
        return torch.cat([self.half * w, (self.shift * w).sum(1, keepdim=True)], 1)

    def _masked(self, v: Tensor) -> Tensor:
        return self.threat.masked(v.view_as(self.jacobian.x)).flatten(1)

    def _cut(self, u: Tensor) -> Tensor:
        if self.across is not None:
            u = u - (u * self.across).sum(1, keepdim=True) * self.across
        if self.outside is not None:
            u = u - torch.einsum("nk,nkd->nd", torch.einsum("nkd,nd->nk", self.outside, u), self.outside)
        return u

    def at(self, rows: Tensor) -> BallJacobian:
        """The same for some of the samples."""
        threat = self.threat.rows(rows, self.jacobian.x)
        across, outside = (None if v is None else v[rows] for v in (self.across, self.outside))
        return replace(self, jacobian=self.jacobian.at(rows), threat=threat, across=across, outside=outside)

    def matrix(self) -> Tensor:
        """(N, D, columns) in float64."""
        jacobian = self.jacobian.matrix().double()
        if self.across is not None:
            unit = self.across.double()
            jacobian = jacobian - unit[:, :, None] * (unit[:, None] @ jacobian)
        if self.threat.norm == "l2":
            return jacobian * self._masked(self.eps.expand(-1, self.columns).to(jacobian.dtype))[:, None]
        return torch.cat([jacobian * self.half[:, None].double(), jacobian @ self.shift[:, :, None].double()], 2)

    def along(self, unit: Tensor) -> Tensor:
        """The largest change (N,) of the maps in the direction of unit (N, D): exact."""
        w = self._columns(self.jacobian.adjoint(unit)).double()
        size: Tensor = torch.linalg.vector_norm(w, ord=2 if self.threat.norm == "l2" else 1, dim=1)
        return size
