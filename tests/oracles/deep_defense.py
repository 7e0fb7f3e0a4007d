"""Deep Defense written out sample by sample from the paper, with all classes and derivatives from differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from oracles import differences

Model = Callable[[Tensor], Tensor]


def change(model: Model, x: Tensor, label: int, toward: int | None, steps: int, overshoot: float) -> Tensor:
    """DeepFool's change of one sample (*) in l2: away from its label, or toward a class."""
    total = torch.zeros_like(x)
    for _ in range(steps):
        point = (x + (1 + overshoot) * total)[None]
        logits = model(point).detach()[0].tolist()
        predicted = logits.index(max(logits))
        if (toward is None and predicted != label) or (toward is not None and predicted == toward):
            break
        slopes = differences.jacobian(model, point)[0]  # (K, *)
        here = label if toward is None else predicted
        rivals = [k for k in range(len(logits)) if k != here] if toward is None else [toward]
        best, shortest = None, math.inf
        for k in rivals:
            w = slopes[k] - slopes[here]
            size = math.sqrt(float((w * w).sum()))
            length = abs(logits[k] - logits[here]) / size
            if length < shortest:
                best, shortest = length / size * w, length
        assert best is not None
        total = total + best
    return (1 + overshoot) * total


def loss(
    model: Model, x: Tensor, y: Tensor, *, weight: float, correct: float, wrong: float, steps: int, overshoot: float,
    center: float = 0.0, limit: float = 5.0,
) -> float:  # fmt: skip
    """The term of Deep Defense: the mean over the samples of weight exp(-c rho) or weight exp(d rho)."""
    total = 0.0
    for n in range(len(x)):
        label = int(y[n])
        right = int(model(x[n : n + 1]).detach()[0].argmax()) == label
        moved = change(model, x[n], label, None if right else label, steps, overshoot)
        rho = math.sqrt(float((moved**2).sum())) / math.sqrt(float(((x[n] - center) ** 2).sum()))
        # Beyond the limit the exponential of a wrong sample goes on as a logarithm.
        t = wrong * rho
        grown = math.exp(t) if t <= limit else math.exp(limit) * (1 + limit * math.log(t / limit))
        total += weight * (math.exp(-correct * rho) if right else grown)
    return total / len(x)
