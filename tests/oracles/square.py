"""Square written from Andriushchenko et al. 2020 (arXiv 1912.00049), algorithms 1 to 3, as a yardstick.

Loops over samples with NumPy's generator, for images (N, C, H, W) in [0, 1]; no sample leaves unless
`leave`. Nothing shared with the package.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


def share(first: float, query: int, queries: int) -> float:
    at = query / queries * 10_000
    for bar, halvings in ((10, 0), (50, 1), (200, 2), (500, 3), (1000, 4), (2000, 5), (4000, 6), (6000, 7), (8000, 8)):
        if at <= bar:
            return first / 2**halvings
    return first / 2**9


def _margins(model: nn.Module, points: Array, y: Tensor, dtype: torch.dtype) -> Array:
    with torch.no_grad():
        z = model(torch.from_numpy(points).to(dtype)).double()
    own = z.gather(1, y[:, None]).squeeze(1)
    return (z.scatter(1, y[:, None], -torch.inf).amax(1) - own).numpy()


def _rectangles(rows: int, columns: int) -> Array:
    delta = np.zeros((rows, columns))
    r, c = rows // 2, columns // 2
    for k in range(max(rows // 2 + 1, columns // 2 + 1)):
        delta[max(r - k, 0) : r + k + 1, max(c - k, 0) : c + k + 1] += 1 / (k + 1) ** 2
    return delta / np.sqrt((delta**2).sum())


def _eta(side: int, rng: np.random.Generator) -> Array:
    half = side // 2
    delta = np.concatenate([_rectangles(half, side), -_rectangles(side - half, side)]) if half else np.ones((1, 1))
    delta = delta / np.sqrt((delta**2).sum())
    return delta.T if rng.random() > 0.5 else delta


def _start(x: Array, eps: float, norm: str, rng: np.random.Generator) -> Array:
    channels, height, width = x.shape
    if norm == "linf":
        return np.clip(x + eps * rng.choice([-1.0, 1.0], (channels, 1, width)), 0, 1)
    side = max(height // 5, 1)
    delta = np.zeros_like(x)
    for i in range(0, height - side + 1, side):
        for j in range(0, width - side + 1, side):
            delta[:, i : i + side, j : j + side] += _eta(side, rng) * rng.choice([-1.0, 1.0], (channels, 1, 1))
    return np.clip(x + delta / np.sqrt((delta**2).sum()) * eps, 0, 1)


def _propose(x: Array, best: Array, p: float, eps: float, norm: str, rng: np.random.Generator) -> Array:
    channels, height, width = x.shape
    side = max(round(np.sqrt(p * height * width)), 1 if norm == "linf" else 3)
    side += norm == "l2" and side % 2 == 0
    side = min(side, height, width)

    def window() -> tuple[slice, slice, slice]:
        i, j = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        return slice(None), slice(i, i + side), slice(j, j + side)

    first, signs = window(), rng.choice([-1.0, 1.0], (channels, 1, 1))
    if norm == "linf":
        # As in the authors' code (max-andr/square-attack), signs are drawn until they change something.
        while True:
            delta = best - x
            delta[first] += 2 * eps * signs
            point: Array = np.clip(x + np.clip(delta, -eps, eps), 0, 1)
            if np.abs(point - best).max() > 1e-7:
                return point
            signs = rng.choice([-1.0, 1.0], (channels, 1, 1))
    second, delta = window(), best - x
    both = np.zeros_like(x)
    both[first] = both[second] = 1
    left = max(eps**2 - (delta**2).sum(), 0) / channels
    mass = np.sqrt(((delta * both) ** 2).sum((1, 2), keepdims=True) + left)
    fresh = _eta(side, rng) * signs + delta[first] / (1e-12 + np.sqrt((delta[first] ** 2).sum()))
    fresh = fresh / (1e-12 + np.sqrt((fresh**2).sum((1, 2), keepdims=True))) * mass
    delta[second] = 0
    delta[first] = fresh
    return np.clip(x + delta / np.sqrt((delta**2).sum()).clip(1e-12) * eps, 0, 1)


def fooled(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: str, *, queries: int = 5000, p: float = 0.8, seed: int = 0
) -> Tensor:
    """Which samples (N,) fall within the queries."""
    clean = x.double().numpy()
    rngs = [np.random.default_rng((seed, n)) for n in range(len(x))]
    best = np.stack([_start(c, eps, norm, rng) for c, rng in zip(clean, rngs)])
    value = _margins(model, best, y, x.dtype)
    for query in range(1, queries):
        rows = np.flatnonzero(value <= 0)  # the paper, too, stops at success
        if len(rows) == 0:
            break
        at = share(p, query, queries)
        points = np.stack([_propose(clean[n], best[n], at, eps, norm, rngs[n]) for n in rows])
        seen = _margins(model, points, y[rows], x.dtype)
        better = rows[seen > value[rows]]
        best[better], value[better] = points[seen > value[rows]], seen[seen > value[rows]]
    return torch.from_numpy(value > 0)
