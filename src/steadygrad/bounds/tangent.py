"""The Jacobian of an attribution without its entries: products with vectors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from steadygrad.attributions.attribution import Forward, score
from steadygrad.bounds.path import Path
from steadygrad.derivatives import gradient

__all__ = ["Tangent"]


class Tangent:
    """The map g (N, D) of a batch and products with its Jacobian J = diag(s' h) + diag(s) M.

    M, a sum of Hessians, is symmetric: one backward through the graph of the gradients serves both
    J and its transpose. The graph of up to `chunk` points is kept; with more, each product builds it
    anew, `chunk` points at a time, which bounds the memory.

    The model must be frozen and attention on the math kernel while this is in use.

    Args:
        known: M (N, D, D), if that has been computed.
    """

    def __init__(
        self, forward: Forward, path: Path, x: Tensor, target: Tensor, chunk: int, known: Tensor | None = None
    ) -> None:
        self.known = known
        self.forward, self.path, self.x, self.target, self.chunk = forward, path, x.detach(), target, chunk
        self.scale = path.scale(self.x).flatten(1)  # (N, D)
        self._kept: tuple[Tensor, Tensor] | None = None
        if len(path.nodes) * len(x) <= chunk:
            self._kept = next(self._graphs())[1:]
            mean = self._collect(slice(None), self._kept[0].detach(), self._shares(nodes=False))
        else:
            mean = torch.zeros_like(self.scale)
            for rows, slopes, _ in self._graphs():
                mean += self._collect(rows, slopes.detach(), self._shares(nodes=False))
        self.mean = mean  # h, (N, D)
        self.stretch = mean if path.scaled else torch.zeros_like(mean)  # the diagonal s' h
        self.maps = self.scale * self.mean  # g, (N, D)

    def at(self, rows: Tensor) -> Tangent:
        """The same for some of the samples."""
        return Tangent(self.forward, self.path, self.x[rows], self.target[rows], self.chunk)

    def passes(self, products: Tensor) -> tuple[Tensor, Tensor]:
        """Forwards and backwards (N,) that a sample needs for so many products (N,)."""
        again = 0 if self._kept is not None else 1
        nodes = len(self.path.nodes)
        return nodes * (1 + again * products), nodes * (1 + (1 + again) * products)

    def apply(self, u: Tensor) -> Tensor:
        """J u (N, D) for directions u (N, D)."""
        return self.bend(u) + self.stretch * u

    def adjoint(self, v: Tensor) -> Tensor:
        """J^T v (N, D) for v (N, D)."""
        return self.bend_back(v) + self.stretch * v

    def bend(self, u: Tensor) -> Tensor:
        """diag(s) M u: what the curvature does, which is close to low rank."""
        return self.scale * self._curve(u)

    def bend_back(self, v: Tensor) -> Tensor:
        """M diag(s) v."""
        return self._curve(self.scale * v)

    def matrix(self) -> Tensor:
        """J itself (N, D, D): D products, or none where M is known."""
        if self.known is not None:
            return torch.diag_embed(self.stretch) + self.scale[:, :, None] * self.known
        count, entries = self.scale.shape
        out = self.scale.new_empty(count, entries, entries)
        for j in range(entries):
            unit = torch.zeros_like(self.scale)
            unit[:, j] = 1
            out[:, :, j] = self.apply(unit)
        return out

    def _curve(self, u: Tensor) -> Tensor:
        """M u, with M = sum_k w_k a_k H_k."""
        out = torch.zeros_like(u)
        shares = self._shares(nodes=True)
        kept = self._kept
        for rows, slopes, points in [(slice(None), *kept)] if kept is not None else self._graphs():
            spread = u.repeat(len(self.path.nodes), 1)[rows].view_as(points)
            if slopes.requires_grad:
                (product,) = torch.autograd.grad(
                    slopes, points, spread, retain_graph=kept is not None, allow_unused=True
                )
                if product is not None:
                    out += self._collect(rows, product, shares)
        return out

    def _graphs(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Slices of the K N points with their gradients, as functions of the points."""
        points = self.path.points(self.x).flatten(0, 1)  # (K N, *)
        classes = self.target.repeat(len(self.path.nodes))
        for first in range(0, len(points), self.chunk):
            rows = slice(first, first + self.chunk)
            some = points[rows].detach().requires_grad_()
            labels = classes[rows]
            _, slopes = gradient(
                lambda p, t=labels: score(self.forward(p), t, self.path.of),  # type: ignore[misc]
                some,
                create_graph=True,
            )
            yield rows, slopes, some

    def _shares(self, nodes: bool) -> Tensor:
        weights = [w * a if nodes else w for w, a in zip(self.path.weights, self.path.nodes)]
        return torch.tensor(weights, dtype=self.x.dtype, device=self.x.device).repeat_interleave(len(self.x))

    def _collect(self, rows: slice, values: Tensor, shares: Tensor) -> Tensor:
        """Sum over the points of each sample of share times value, for a slice of the points."""
        flat = values.flatten(1) * shares[rows, None]
        which = torch.arange(len(shares), device=flat.device)[rows] % len(self.x)
        return torch.zeros_like(self.scale).index_add_(0, which, flat)
