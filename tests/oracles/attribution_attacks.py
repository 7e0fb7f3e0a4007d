"""Attacks on one sample's map, written from the formulas: lists, loops, slopes from differences of values."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from oracles import differences

Model = Callable[[Tensor], Tensor]


def saliency(model: Model, x: Tensor, target: int) -> Tensor:
    """Gradient of one logit at one input (1, *)."""
    leaf = x.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf)[0, target], leaf)
    return slope[0]


def pixels(maps: Tensor) -> list[float]:
    """Absolute values of a map (C, H, W), summed over channels, pixel by pixel."""
    return [sum(abs(float(maps[c, i, j])) for c in range(maps.shape[0])) for i, j in _places(maps)]


def _places(maps: Tensor) -> list[tuple[int, int]]:
    return [(i, j) for i in range(maps.shape[1]) for j in range(maps.shape[2])]


def best(values: list[float], count: int) -> set[int]:
    """The largest entries; among equals those that come first."""
    return set(sorted(range(len(values)), key=lambda i: (-values[i], i))[:count])


def loss(name: str, maps: Tensor, clean: Tensor, count: int, aim: Tensor | None = None) -> float:
    """What is raised, of maps (C, H, W)."""
    p, q = pixels(maps), pixels(clean)
    if name == "top-k":
        return -sum(p[i] for i in best(q, count)) / sum(p)
    if name == "mass-center":
        centers = []
        for values in (p, q):
            total = sum(values)
            centers.append([sum(v * place[a] for v, place in zip(values, _places(maps))) / total for a in (0, 1)])
        return math.dist(*centers) / math.hypot(maps.shape[1] - 1, maps.shape[2] - 1)
    if name == "target-map":
        assert aim is not None
        return _cosine(p, pixels(aim)) - _cosine(q, pixels(aim))
    flat = maps.flatten().tolist(), clean.flatten().tolist()
    return math.dist(*flat) if name == "euclidean" else 1 - _cosine(*flat)


def _cosine(a: list[float], b: list[float]) -> float:
    return sum(u * v for u, v in zip(a, b)) / math.sqrt(sum(u * u for u in a) * sum(v * v for v in b))


def deviation(name: str, maps: Tensor, clean: Tensor, count: int, aim: Tensor | None = None) -> float:
    """What is reported: for the top k the share of pixels lost, for the others what is raised."""
    if name == "top-k":
        return 1 - len(best(pixels(maps), count) & best(pixels(clean), count)) / count
    return loss(name, maps, clean, count, aim)


def ascend(
    model: Model, x: Tensor, start: Tensor, name: str, *, norm: str, eps: float, steps: int, count: int
) -> tuple[Tensor, float]:
    """The best point (1, *) of one ascent of one sample's saliency map, and its deviation."""
    label = int(model(x)[0].argmax())
    clean = saliency(model, x, label)
    point, kept, top = start, x, -math.inf
    if name == "top-k":
        top = -float(count) + loss(name, clean, clean, count)

    def value(p: Tensor) -> Tensor:
        return torch.tensor([loss(name, saliency(model, p, label), clean, count)], dtype=torch.float64)

    def back(p: Tensor) -> Tensor:
        logits = model(p).detach()[0]
        others = [float(v) for k, v in enumerate(logits) if k != label]
        return torch.tensor([float(logits[label]) - max(others)], dtype=torch.float64)

    for i in range(steps + 1):
        stays = int(model(point)[0].argmax()) == label
        if stays:
            maps = saliency(model, point, label)
            rank = loss(name, maps, clean, count)
            if name == "top-k":
                rank -= len(best(pixels(maps), count) & best(pixels(clean), count))
            if rank > top:
                kept, top = point, rank
        if i == steps:
            break
        with torch.enable_grad():
            slope = _gradient(value if stays else back, point)
        length = max(0.25, 5 / (steps + 1)) * (1 - i / steps) * eps
        change = point - x + length * (slope.sign() if norm == "linf" else slope / slope.norm())
        change = change.clamp(-eps, eps) if norm == "linf" else change * min(1.0, eps / float(change.norm()))
        point = (x + change).clamp(0, 1)
    return kept, deviation(name, saliency(model, kept, label), clean, count)


def _gradient(value: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    slope = torch.zeros_like(point)
    for index in range(point.numel()):
        shift = torch.zeros_like(point).flatten()
        shift[index] = differences.STEP
        shift = shift.view_as(point)
        slope.view(-1)[index] = ((value(point + shift) - value(point - shift)) / (2 * differences.STEP)).item()
    return slope
