"""The largest singular values of an operator that is known by its products alone, for a batch of operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Bidiagonal", "Operator", "bidiagonalize", "largest"]


class Operator(Protocol):
    """A batch of N linear maps from n to m entries."""

    def apply(self, v: Tensor) -> Tensor:
        """A v (N, m) of v (N, n)."""

    def adjoint(self, u: Tensor) -> Tensor:
        """A^T u (N, n) of u (N, m)."""

    def at(self, rows: Tensor) -> Operator:
        """The same for some of the N."""


@dataclass(frozen=True)
class Bidiagonal:
    """U (N, k, m) and V (N, k + 1, n) with orthonormal rows, and B (N, k, k + 1) with U A = B V.

    Rows after a sample's own last step are zero. `steps` (N,) is the number of its steps.
    """

    left: Tensor
    right: Tensor
    band: Tensor
    steps: Tensor

    @property
    def factor(self) -> Tensor:
        """U A (N, k, n), in float64: what the operator does within the span of the left vectors."""
        return self.band @ self.right.double()

    def top(self) -> tuple[Tensor, Tensor, Tensor]:
        """Largest singular value (N,), the residual (N,) of its triplet, and its right vector (N, n)."""
        value, residual, mix = _leading(self.band, self.steps)
        vector = torch.einsum("nk,nkd->nd", mix.to(self.right.dtype), self.right[:, :-1])
        return value, residual, vector


def _leading(band: Tensor, steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the square part of each band (N, k, k + 1): the largest singular value, what the last column adds, mix."""
    # The last entry of a sample that stopped early lies in a column that is not its own.
    own = torch.arange(band.shape[1], device=band.device) < steps[:, None]
    x, values, y = torch.linalg.svd(band[:, :, :-1] * own[:, None])
    last = band.gather(1, (steps - 1).clamp_min(0).view(-1, 1, 1).expand(-1, 1, band.shape[2]))[:, 0]  # (N, k + 1)
    tail = last.gather(1, steps.clamp_max(band.shape[2] - 1)[:, None])[:, 0]
    weight = x[:, :, 0].gather(1, (steps - 1).clamp_min(0)[:, None])[:, 0]
    return values[:, 0], (tail * weight).abs(), y[:, 0]


Finished = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def bidiagonalize(operator: Operator, start: Tensor, steps: int, finished: Finished) -> Bidiagonal:
    """Golub-Kahan bidiagonalization from start vectors (N, n), orthogonalized in full.

    A sample stops when `finished(rows (A,), left (A, k, m), right (A, k + 1, n), band (A, k, k + 1))` says
    so (A,), or when nothing new is reached; its numbers do not depend on those of its neighbors. Once
    half of the samples have stopped, the others go on alone. Two products a step.

    Source: Golub and Kahan 1965; with upper bidiagonal B, U A = B V up to rounding.
    """
    count = len(start)
    rows = torch.arange(count, device=start.device)
    rights = [_unit(start)[0]]
    lefts: list[Tensor] = []
    whole: Bidiagonal | None = None
    band = torch.zeros(count, steps, steps + 1, dtype=torch.float64, device=start.device)
    taken = torch.zeros(count, dtype=torch.int64, device=start.device)
    left = right = start.new_zeros(count, 0, 0)
    going = torch.ones(count, dtype=torch.bool, device=start.device)
    tiny = 16 * torch.finfo(start.dtype).eps
    for k in range(steps):
        u, alpha = _unit(_orthogonal(operator.apply(rights[-1]), lefts))
        lefts.append(u)
        v, beta = _unit(_orthogonal(operator.adjoint(u), rights))
        size = torch.maximum(band[rows].flatten(1).abs().amax(1), torch.maximum(alpha, beta))
        # Rounding noise is not a direction: what is left of a used-up space ends the run.
        alpha, beta = (torch.where(b > tiny * size, b, 0.0) for b in (alpha, beta))
        u, v = u * (alpha > 0)[:, None], v * (beta > 0)[:, None]
        beta = beta * (alpha > 0)
        alive = going[rows]
        lefts[-1], v = u * alive[:, None], v * alive[:, None]
        rights.append(v)
        band[rows, k, k], band[rows, k, k + 1] = alpha * alive, beta * alive
        taken[rows] += alive
        left, right = torch.stack(lefts, 1), torch.stack(rights, 1)
        if whole is None:
            whole = Bidiagonal(left, right, band, taken)
        stop = finished(rows, left, right, band[rows, : k + 1, : k + 2]) | (beta == 0) | (alpha == 0)
        going[rows] = alive & ~stop
        left_over = going[rows]
        if k == steps - 1 or not bool(left_over.any()):
            break
        if 2 * int(left_over.sum()) <= len(rows):
            whole = _put(whole, rows, left, right, band, taken)
            keep = left_over.nonzero().squeeze(1)
            operator, rows = operator.at(keep), rows[keep]
            lefts, rights = [t[keep] for t in lefts], [t[keep] for t in rights]
    assert whole is not None
    whole = _put(whole, rows, left, right, band, taken)
    most = whole.left.shape[1]
    return Bidiagonal(whole.left, whole.right, band[:, :most, : most + 1], taken)


def _put(whole: Bidiagonal, rows: Tensor, left: Tensor, right: Tensor, band: Tensor, taken: Tensor) -> Bidiagonal:
    """The vectors of some samples written into those of all, which get zeros behind their last."""
    parts = []
    for old, new in ((whole.left, left), (whole.right, right)):
        out = old.new_zeros(len(old), new.shape[1], new.shape[2])
        out[:, : old.shape[1]] = old
        out[rows] = new
        parts.append(out)
    return Bidiagonal(parts[0], parts[1], band, taken)


def largest(
    operator: Operator, start: Tensor, *, steps: int, tolerance: float, enough: Tensor | None = None
) -> Bidiagonal:
    """Bidiagonalize until the residual of the largest singular value is at most tolerance times it.

    Or until both together are at most `enough` (N,), below which nothing matters.

    The residual says that a singular value lies so close to the one found. That it is the largest
    rests on the start being random: a direction that it misses is missed.
    """

    def finished(rows: Tensor, left: Tensor, right: Tensor, band: Tensor) -> Tensor:
        value, residual, _ = _leading(band, torch.full_like(rows, band.shape[1]))
        done = residual <= tolerance * value
        return done if enough is None else done | (value + residual <= enough[rows])

    return bidiagonalize(operator, start, steps, finished)


def _unit(v: Tensor) -> tuple[Tensor, Tensor]:
    size = torch.linalg.vector_norm(v.double(), dim=1)
    return (v / torch.where(size > 0, size, 1.0)[:, None]).to(v.dtype), size


def _orthogonal(v: Tensor, basis: list[Tensor]) -> Tensor:
    if not basis:
        return v
    rows = torch.stack(basis, 1)  # (N, k, n)
    for _ in range(2):  # once loses orthogonality where most of v lies in the span
        v = v - torch.einsum("nk,nkd->nd", torch.einsum("nkd,nd->nk", rows, v), rows)
    return v
