"""The two penalties of J-SIGR, sample by sample, with derivatives from differences and masks by sorting."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from oracles import differences, perturbation
from oracles.defenses import log_probabilities

Model = Callable[[Tensor], Tensor]


def jacobian_norm(model: Model, x: Tensor, of: str) -> list[float]:
    """Sum of the squares of all entries of the Jacobian, for each sample."""

    def outputs(points: Tensor) -> Tensor:
        logits = model(points).detach()
        logs = [log_probabilities(row) for row in logits]
        return logits if of == "logits" else torch.tensor(logs, dtype=torch.float64).exp()

    return [float((differences.jacobian(outputs, x[n : n + 1]) ** 2).sum()) for n in range(len(x))]


def mask(model: Model, x: Tensor, target: Tensor, share: float, grid: int) -> Tensor:
    """(N, H, W): 1 for the pixels of the largest blur saliency, lower index first among equals."""
    maps = perturbation.blur_map(model, x, target, "blur_saliency", grid=grid)
    count = max(1, round(share * maps[0].numel()))
    out = torch.zeros_like(maps)
    for n, values in enumerate(maps.flatten(1).tolist()):
        for i in sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]:
            out[n].view(-1)[i] = float(values[i] > 0)
    return out


def selective(model: Model, x: Tensor, labels: list[int], masks: Tensor) -> list[float]:
    """Squared norm of the gradient of log p_label outside of the mask, for each sample."""
    sizes = []
    for n, label in enumerate(labels):

        def value(point: Tensor, label: int = label) -> Tensor:
            return torch.tensor([log_probabilities(row)[label] for row in model(point).detach()], dtype=torch.float64)

        slope = differences.gradient(value, x[n : n + 1])[0]
        sizes.append(float(((1 - masks[n]) * slope).square().sum()))
    return sizes
