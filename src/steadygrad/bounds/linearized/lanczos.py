"""The largest singular values of an operator that is known by its products alone, for a batch of operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


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
    left = start.new_empty(count, 0, 0)
    right = start.new_zeros(count, steps + 1, start.shape[1])
    right[:, 0] = _unit(start)[0]
    band = torch.zeros(count, steps, steps + 1, dtype=torch.float64, device=start.device)
    taken = torch.zeros(count, dtype=torch.int64, device=start.device)
    going = torch.ones(count, dtype=torch.bool, device=start.device)
    tiny = 16 * torch.finfo(start.dtype).eps
    done = 0
    for k in range(steps):
        image = operator.apply(right[rows, k])
        if k == 0:
            left = start.new_zeros(count, steps, image.shape[1])
        u, alpha = _unit(_orthogonal(image, left[rows, :k]))
        v, beta = _unit(_orthogonal(operator.adjoint(u), right[rows, : k + 1]))
        size = torch.maximum(band[rows].flatten(1).abs().amax(1), torch.maximum(alpha, beta))
        # Rounding noise is not a direction: what is left of a used-up space ends the run.
        alpha, beta = (torch.where(b > tiny * size, b, 0.0) for b in (alpha, beta))
        beta = beta * (alpha > 0)
        alive = going[rows]
        left[rows, k] = u * ((alpha > 0) & alive)[:, None]
        right[rows, k + 1] = v * ((beta > 0) & alive)[:, None]
        band[rows, k, k], band[rows, k, k + 1] = alpha * alive, beta * alive
        taken[rows] += alive
        done = k + 1
        stop = finished(rows, left[rows, :done], right[rows, : k + 2], band[rows, :done, : k + 2])
        going[rows] = alive & ~(stop | (beta == 0) | (alpha == 0))
        left_over = int(going[rows].sum())
        if not left_over:
            break
        if 2 * left_over <= len(rows):
            keep = going[rows].nonzero().squeeze(1)
            operator, rows = operator.at(keep), rows[keep]
    return Bidiagonal(left[:, :done], right[:, : done + 1], band[:, :done, : done + 1], taken)


def largest(
    operator: Operator, start: Tensor, *, steps: int, tolerance: float, enough: Tensor | None = None
) -> Bidiagonal:
    """Bidiagonalize until the residual of the largest singular value is at most tolerance times it.

    Or until both together are at most `enough` (N,), below which nothing matters. The residual says that a
    singular value lies so close to the one found. That it is the largest rests on the start being random: a
    direction that it misses is missed.
    """

    def finished(rows: Tensor, left: Tensor, right: Tensor, band: Tensor) -> Tensor:
        value, residual, _ = _leading(band, torch.full_like(rows, band.shape[1]))
        done = residual <= tolerance * value
        return done if enough is None else done | (value + residual <= enough[rows])

    return bidiagonalize(operator, start, steps, finished)


def _unit(v: Tensor) -> tuple[Tensor, Tensor]:
    size = torch.linalg.vector_norm(v.double(), dim=1)
    return (v / torch.where(size > 0, size, 1.0)[:, None]).to(v.dtype), size


def _orthogonal(v: Tensor, basis: Tensor) -> Tensor:
    """v (N, n) without its part in the span of the basis (N, k, n)."""
    if not basis.shape[1]:
        return v
    for _ in range(2):  # once loses orthogonality where most of v lies in the span
        v = v - torch.einsum("nk,nkd->nd", torch.einsum("nkd,nd->nk", basis, v), basis)
    return v
