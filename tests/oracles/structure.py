"""Similarities of two pictures (rows of numbers) by loops over their pixels."""

from __future__ import annotations

import math

Picture = list[list[float]]


def ssim(a: Picture, b: Picture) -> float:
    """Mean SSIM over the places where a Gaussian window of 11 (or fewer, odd) pixels fits; largest values 1."""
    a, b = ([[v / max(map(max, m)) for v in row] for row in m] for m in (a, b))
    height, width = len(a), len(a[0])
    side = min(11, height, width)
    if side % 2 == 0:
        side -= 1
    half = side // 2
    weight = {
        (i, j): math.exp(-(i * i + j * j) / (2 * 1.5 * 1.5))
        for i in range(-half, half + 1)
        for j in range(-half, half + 1)
    }
    total = sum(weight.values())
    values = []
    for r in range(half, height - half):
        for c in range(half, width - half):
            places = [(w / total, a[r + i][c + j], b[r + i][c + j]) for (i, j), w in weight.items()]
            mean_a, mean_b = sum(w * p for w, p, _ in places), sum(w * q for w, _, q in places)
            var_a = sum(w * (p - mean_a) ** 2 for w, p, _ in places)
            var_b = sum(w * (q - mean_b) ** 2 for w, _, q in places)
            both = sum(w * (p - mean_a) * (q - mean_b) for w, p, q in places)
            values.append(
                (2 * mean_a * mean_b + 1e-4)
                * (2 * both + 9e-4)
                / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
            )
    return sum(values) / len(values)


def center(a: Picture) -> tuple[float, float]:
    """Row and column of the center of mass."""
    total = sum(map(sum, a))
    return (
        sum(r * v for r, row in enumerate(a) for v in row) / total,
        sum(c * v for row in a for c, v in enumerate(row)) / total,
    )


def near_top_k(a: Picture, b: Picture, count: int, radius: int) -> float:
    """Share of each one's top pixels that have one of the other's within `radius`, mean of both."""

    def best(picture: Picture) -> list[tuple[int, int]]:
        places = [(r, c) for r in range(len(picture)) for c in range(len(picture[0]))]
        return sorted(places, key=lambda p: (-picture[p[0]][p[1]], p))[:count]

    def covered(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> int:
        return sum(any(max(abs(r - i), abs(c - j)) <= radius for i, j in theirs) for r, c in ours)

    tops = best(a), best(b)
    return (covered(*tops) + covered(tops[1], tops[0])) / (2 * count)
