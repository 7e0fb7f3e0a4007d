"""Training losses written out sample by sample, with derivatives from differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from oracles import differences

Model = Callable[[Tensor], Tensor]


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> list[float]:
    """Of one sample, from logits (K,)."""
    scaled = [float(v) / temperature for v in logits]
    top = max(scaled)
    total = top + math.log(sum(math.exp(v - top) for v in scaled))
    return [v - total for v in scaled]


def cross_entropy(model: Model, x: Tensor, y: Tensor, temperature: float = 1.0) -> float:
    """Mean over the samples."""
    values = [-log_probabilities(row, temperature)[int(label)] for row, label in zip(model(x).detach(), y)]
    return sum(values) / len(values)


def input_gradient(model: Model, x: Tensor, y: Tensor, label: str, norm: str) -> float:
    """Mean over the samples of the size of the input gradient of one sample's cross-entropy."""
    sizes = []
    for n in range(len(x)):

        def value(point: Tensor, n: int = n) -> Tensor:
            logs = [log_probabilities(row) for row in model(point).detach()]
            own = [row[int(y[n])] if label == "true" else sum(row) / len(row) for row in logs]
            return torch.tensor([-v for v in own], dtype=torch.float64)

        slope = differences.gradient(value, x[n : n + 1]).flatten().tolist()
        sizes.append(sum(g * g for g in slope) if norm == "l2" else sum(abs(g) for g in slope))
    return sum(sizes) / len(sizes)


def fgsm(model: Model, x: Tensor, labels: Sequence[int], eps: float) -> Tensor:
    """x + eps sign of the gradient of the cross-entropy, within [0, 1]."""
    points = []
    for n, label in enumerate(labels):

        def value(point: Tensor, label: int = label) -> Tensor:
            return torch.tensor([-log_probabilities(row)[label] for row in model(point).detach()], dtype=torch.float64)

        points.append((x[n] + eps * differences.gradient(value, x[n : n + 1])[0].sign()).clamp(0, 1))
    return torch.stack(points)


def divergence(model: Model, x: Tensor, points: Tensor) -> float:
    """Mean over the samples of KL(p(x) || p(point))."""
    values = []
    for n in range(len(x)):
        clean = log_probabilities(model(x[n : n + 1]).detach()[0])
        moved = log_probabilities(model(points[n : n + 1]).detach()[0])
        values.append(sum(math.exp(c) * (c - m) for c, m in zip(clean, moved)))
    return sum(values) / len(values)


def distillation(model: Model, teacher: Model, x: Tensor, temperature: float) -> float:
    """Mean over the samples of the cross-entropy with the teacher's soft labels."""
    values = []
    for own, other in zip(model(x).detach(), teacher(x).detach()):
        mine, soft = log_probabilities(own, temperature), log_probabilities(other, temperature)
        values.append(-sum(math.exp(s) * m for s, m in zip(soft, mine)))
    return sum(values) / len(values)
