"""Perturbation saliency by explicit loops: one image, one place, one pixel at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from oracles import attributions

Model = Callable[[Tensor], Tensor]


def blurred(x: Tensor, sigma: float) -> Tensor:
    """SciPy's Gaussian filter along the rows and columns of images (N, C, H, W)."""
    once = gaussian_filter1d(x.double().numpy(), sigma, axis=2)
    return torch.from_numpy(gaussian_filter1d(once, sigma, axis=3)).to(x)


def centers(size: int, shorter: int, grid: int) -> list[float]:
    """The middles of the equal parts into which the grid divides a side."""
    count = min(size, max(1, round(grid * size / shorter)))
    return [(i + 0.5) * size / count - 0.5 for i in range(count)]


def bump(height: int, width: int, top: float, left: float, spread: float) -> Tensor:
    """A Gaussian around (top, left), divided by its largest value on the pixels."""
    mask = torch.zeros(height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            mask[i, j] = math.exp(-((i - top) ** 2 + (j - left) ** 2) / (2 * spread**2))
    return mask / mask.max()


def between(grid: list[list[float]], rows: list[float], columns: list[float], height: int, width: int) -> Tensor:
    """Bilinear interpolation of values at (rows, columns); beyond the outermost ones the nearest counts."""

    def weights(at: float, places: list[float]) -> list[tuple[int, float]]:
        if at <= places[0] or at >= places[-1]:
            return [(0 if at <= places[0] else len(places) - 1, 1.0)]
        i = max(k for k in range(len(places)) if places[k] <= at)
        part = (at - places[i]) / (places[i + 1] - places[i])
        return [(i, 1 - part), (i + 1, part)]

    out = torch.zeros(height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            for k, a in weights(i, rows):
                for m, b in weights(j, columns):
                    out[i, j] += a * b * grid[k][m]
    return out


def _greydanus(before: Tensor, after: Tensor, target: int) -> float:
    return 0.5 * sum(float(b - a) ** 2 for b, a in zip(before, after))


def _sarfa(before: Tensor, after: Tensor, target: int) -> float:
    def probabilities(logits: list[float]) -> list[float]:
        powers = [math.exp(v) for v in logits]
        return [v / sum(powers) for v in powers]

    p, q = probabilities(before.tolist()), probabilities(after.tolist())
    fall = p[target] - q[target]
    if fall <= 0:
        return 0.0
    rest_p = [v / (1 - p[target]) for k, v in enumerate(p) if k != target]
    rest_q = [v / (1 - q[target]) for k, v in enumerate(q) if k != target]
    kept = 1 / (1 + sum(a * math.log(a / b) for a, b in zip(rest_p, rest_q)))
    return 2 * kept * fall / (kept + fall)


def blur_map(
    model: Model, x: Tensor, target: Tensor, kind: str, *, grid: int, radius: float = 1 / 16, sigma: float = 3.0
) -> Tensor:
    """Maps (N, H, W): one value per place of the grid, interpolated."""
    measure = {"blur_saliency": _greydanus, "sarfa": _sarfa}[kind]
    height, width = x.shape[2:]
    shorter = min(height, width)
    rows, columns = centers(height, shorter, grid), centers(width, shorter, grid)
    soft = blurred(x, sigma)
    maps = []
    for n in range(len(x)):
        before = model(x[n : n + 1])[0].detach()
        values = []
        for top in rows:
            line = []
            for left in columns:
                mask = bump(height, width, top, left, radius * shorter).to(x)
                changed = x[n : n + 1] * (1 - mask) + soft[n : n + 1] * mask
                line.append(measure(before, model(changed)[0].detach(), int(target[n])))
            values.append(line)
        maps.append(between(values, rows, columns, height, width))
    return torch.stack(maps)


def occlusion(
    model: Model, x: Tensor, target: Tensor, *, side: int, step: int, baseline: float, of: str = "logit"
) -> Tensor:
    """Maps (N, H, W): the mean fall over the squares that cover a pixel."""
    height, width = x.shape[2:]
    tops, lefts = ([*range(0, size - side, step), size - side] for size in (height, width))
    maps = torch.zeros(len(x), height, width, dtype=torch.float64)
    for n in range(len(x)):
        clean = attributions.score(model(x[n : n + 1]).detach(), int(target[n]), of)
        falls: dict[tuple[int, int], list[float]] = {}
        for top in tops:
            for left in lefts:
                changed = x[n : n + 1].clone()
                changed[:, :, top : top + side, left : left + side] = baseline
                fall = float(clean - attributions.score(model(changed).detach(), int(target[n]), of))
                for i in range(top, top + side):
                    for j in range(left, left + side):
                        falls.setdefault((i, j), []).append(fall)
        for (i, j), values in falls.items():
            maps[n, i, j] = sum(values) / len(values)
    return maps
