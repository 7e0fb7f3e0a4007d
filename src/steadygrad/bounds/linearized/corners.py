"""The corner of a box that a matrix moves furthest: a bound on the length of F s over signs s, and good signs.

The exact maximum is NP-hard. With P = F^T F, every diagonal matrix D >= P gives the bound sqrt(tr D). The
least of these, the dual of the semidefinite relaxation, is at most sqrt(pi / 2) too large, and never above
sqrt(sum |P|), sqrt(n) sigma_max(F) or || |F| 1 ||, which are such matrices or weaker.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steadygrad import randomness
from steadygrad.bounds.linearized import lanczos

_ROUNDING = 1 + 1e-9
_NOISE = 1e-9  # of the longest column: shorter ones are rounding
_DENSE = 2048  # columns up to which the bound rests on all eigenvalues, computed


@dataclass(frozen=True)
class FactoredMatrix:
    """F = left^T rows + a diagonal next to a last column, in float64, for a batch; all but the rows may be missing."""

    rows: Tensor  # (N, k, n)
    left: Tensor | None = None  # (N, k, m), orthonormal; None for the identity (m = k)
    diagonal: Tensor | None = None  # (N, n - 1)
    column: Tensor | None = None  # (N, n - 1), the last column beside the diagonal; then m = n - 1
    across: Tensor | None = None  # (N, m), unit vectors; only what is at right angles to them counts

    def apply(self, s: Tensor) -> Tensor:
        """F s (N, p, m) of s (N, p, n)."""
        out = s @ self.rows.transpose(1, 2)
        out = out @ self.left if self.left is not None else out
        if self.diagonal is not None and self.column is not None:
            out = out + s[:, :, :-1] * self.diagonal[:, None] + s[:, :, -1:] * self.column[:, None]
        return self._cut(out)

    def adjoint(self, u: Tensor) -> Tensor:
        """F^T u (N, p, n) of u (N, p, m)."""
        u = self._cut(u)
        out = (u @ self.left.transpose(1, 2) if self.left is not None else u) @ self.rows
        if self.diagonal is not None and self.column is not None:
            sums = (u * self.column[:, None]).sum(2, keepdim=True)
            out = out + torch.cat([u * self.diagonal[:, None], sums], 2)
        return out

    def _cut(self, u: Tensor) -> Tensor:
        unit = None if self.across is None else self.across[:, None]
        return u if unit is None else u - (u * unit).sum(2, keepdim=True) * unit

    def at(self, keep: Tensor) -> FactoredMatrix:
        """The same for some of the batch."""
        parts = (self.rows, self.left, self.diagonal, self.column, self.across)
        return FactoredMatrix(*(None if p is None else p[keep] for p in parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Scaled:
    """F D^-1/2, as an operator on single vectors."""

    matrix: FactoredMatrix
    root: Tensor  # (N, n)

    def apply(self, v: Tensor) -> Tensor:
        return self.matrix.apply((v / self.root)[:, None])[:, 0]

    def adjoint(self, u: Tensor) -> Tensor:
        return self.matrix.adjoint(u[:, None])[:, 0] / self.root

    def at(self, rows: Tensor) -> _Scaled:
        return _Scaled(self.matrix.at(rows), self.root[rows])


def longest(matrix: FactoredMatrix, seeds: Tensor, restarts: int) -> tuple[Tensor, Tensor]:
    """A bound (N,) on the length of F s over all signs s, and the best signs (N, n) found."""
    like = matrix.rows[:, :1, :1].expand(-1, restarts, matrix.rows.shape[2])
    bound, vectors = relaxation_bound(matrix, randomness.normal(seeds, like, draw=2))
    mixes = randomness.normal(seeds, like[:, :, :1].expand(-1, -1, restarts), draw=3)
    return bound, best_corner(matrix, mixes @ vectors)


def relaxation_bound(matrix: FactoredMatrix, start: Tensor, steps: int = 100) -> tuple[Tensor, Tensor]:
    """The bound (N,) of the relaxation, and its unit vectors (N, p, n), from starts of the same shape.

    Signs become unit vectors of p entries, S <- columns of S P at length 1, which cannot shorten F S^T; the
    lengths of the columns of S P are D up to a factor, the largest eigenvalue of D^-1/2 P D^-1/2, that is
    computed. Any S gives a valid bound.
    """
    vectors = _columns(start)
    going = torch.ones(len(start), dtype=torch.bool, device=start.device)
    for _ in range(steps):
        longer = matrix.adjoint(matrix.apply(vectors))
        after = _columns(longer)
        # The bound is sharp to about the square of what a step still changes; columns of rounding noise have no say.
        size = torch.linalg.vector_norm(longer, dim=1)  # (N, n)
        counts = size > _NOISE * size.amax(1, keepdim=True)
        moved = ((after - vectors).abs().amax(1) * counts).amax(1)
        vectors = torch.where(going[:, None, None], after, vectors)
        going &= moved >= 1e-4
        if not bool(going.any()):
            break
    lengths = torch.linalg.vector_norm(matrix.adjoint(matrix.apply(vectors)), dim=1)  # (N, n)
    size = lengths.amax(1, keepdim=True)
    lengths = torch.maximum(lengths, torch.where(size > 0, _NOISE * size, 1.0))
    root = lengths.sqrt()
    bound = torch.sqrt(_largest_square(_Scaled(matrix, root), start[:, 0]) * lengths.sum(1)) * _ROUNDING
    return torch.where(size[:, 0] > 0, bound, 0.0), vectors


def _largest_square(scaled: _Scaled, start: Tensor) -> Tensor:
    columns = start.shape[1]
    if columns > _DENSE:
        # The residual is added: see `lanczos.largest` for what that rests on.
        value, residual, _ = lanczos.largest(scaled, start, steps=100, tolerance=1e-4).top()
        return (value + residual).square()
    tops = []
    for n in range(len(start)):
        one = scaled.at(torch.tensor([n], device=start.device))
        unit = torch.eye(columns, dtype=start.dtype, device=start.device)[None] / one.root[:, None]
        image = one.matrix.apply(unit)[0]  # (n, m)
        square = image.T @ image if image.shape[1] < columns else image @ image.T
        tops.append(torch.linalg.eigvalsh(square)[-1])
    return torch.stack(tops).clamp_min(0)


def best_corner(matrix: FactoredMatrix, signs: Tensor, steps: int = 100) -> Tensor:
    """The best signs (N, n) that s <- sign(P s) leads to from starts (N, R, n): no step shortens F s."""
    signs = sign(signs)
    for _ in range(steps):
        after = sign(matrix.adjoint(matrix.apply(signs)))
        if bool((after == signs).all()):
            break
        signs = after
    length = torch.linalg.vector_norm(matrix.apply(signs), dim=2)  # (N, R)
    return signs[torch.arange(len(signs), device=signs.device), length.argmax(1)]


def sign(values: Tensor) -> Tensor:
    """1 where not negative, -1 elsewhere: never 0."""
    return torch.where(values < 0, -1.0, 1.0).to(values.dtype)


def _columns(vectors: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return torch.where(size > 0, vectors / torch.where(size > 0, size, 1.0), vectors.shape[1] ** -0.5)
