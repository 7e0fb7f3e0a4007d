"""Nearest points by slow independent means: bisection on the threshold, or trying all subsets."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def l1(u: Array, eps: float) -> Array:
    """The nearest point to a vector u with absolute sum of at most eps."""
    return l1_box(u, eps, np.full_like(u, -np.inf), np.full_like(u, np.inf))


def l1_box(u: Array, eps: float, low: Array, high: Array) -> Array:
    """The nearest point d to u with sum |d| <= eps and low <= d <= high (low <= 0 <= high).

    The Lagrangian sum (d - u)^2 / 2 + t (sum |d| - eps) splits by entries; its minimum for a
    given t is the clipped soft threshold, and t is found by halving.
    """

    def at(t: float) -> Array:
        return np.clip(np.sign(u) * np.maximum(np.abs(u) - t, 0), low, high)

    if np.abs(at(0.0)).sum() <= eps:
        return at(0.0)
    small, large = 0.0, float(np.abs(u).max())
    for _ in range(200):
        middle = (small + large) / 2
        small, large = (middle, large) if np.abs(at(middle)).sum() > eps else (small, middle)
    return at(large)


def l2(u: Array, eps: float) -> Array:
    """The nearest point to u of Euclidean length of at most eps: the scale is found by halving."""
    if np.sqrt((u * u).sum()) <= eps:
        return u
    small, large = 0.0, 1.0
    for _ in range(200):
        middle = (small + large) / 2
        small, large = (middle, large) if np.sqrt(((middle * u) ** 2).sum()) <= eps else (small, middle)
    return small * u


def linf(u: Array, eps: float) -> Array:
    """The nearest point to u with all entries within eps, entry by entry."""
    return np.array([max(-eps, min(eps, entry)) for entry in u])


def l0_distance(u: Array, count: int) -> float:
    """Squared distance from u to the nearest point with `count` entries other than zero (ties have many)."""
    best = float((u * u).sum())
    for kept in itertools.combinations(range(len(u)), min(count, len(u))):
        point = np.zeros_like(u)
        point[list(kept)] = u[list(kept)]
        best = min(best, float(((u - point) ** 2).sum()))
    return best


def l0_box_distance(u: Array, count: int, low: Array, high: Array) -> float:
    """The same with the point also within low <= d <= high (low <= 0 <= high)."""
    best = float((u * u).sum())
    for kept in itertools.combinations(range(len(u)), min(count, len(u))):
        point = np.zeros_like(u)
        point[list(kept)] = np.clip(u, low, high)[list(kept)]
        best = min(best, float(((u - point) ** 2).sum()))
    return best
