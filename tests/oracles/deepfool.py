"""DeepFool for one sample, from Moosavi-Dezfooli et al. 2016 (algorithm 2), all classes, no bounds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


def _look(model: nn.Module, point: Array) -> tuple[Array, Array]:
    """Logits (K,) and their slopes (K, D) at a point of shape (D,)."""

    def logits(flat: Tensor) -> Tensor:
        out: Tensor = model(flat)[0]
        return out

    at = torch.from_numpy(point)[None]
    slopes = torch.autograd.functional.jacobian(logits, at)
    return logits(at).detach().numpy(), slopes.view(-1, len(point)).numpy()


def change(model: nn.Module, x: Array, y: int, norm: str, *, overshoot: float = 0.02, least: float = 0.0) -> Array:
    """The lengthened change (D,) after which the prediction is not y; a model of flat inputs (N, D).

    The package departs from the paper in two places: steps are no shorter than `least`, and the lengthened
    change, of which the prediction is asked, is also where the next step begins.
    """
    total = np.zeros_like(x)
    for _ in range(50):
        z, w = _look(model, x + total)
        if z.argmax() != y:
            break
        nearest, step = np.inf, np.zeros_like(x)
        for k in range(len(z)):
            if k == y:
                continue
            gap, way = z[k] - z[y], w[k] - w[y]
            if norm == "l2":
                distance = max(least, abs(gap) / np.sqrt((way**2).sum()))
                move = distance * way / np.sqrt((way**2).sum())
            else:
                distance = max(least, abs(gap) / np.abs(way).sum())
                move = distance * np.sign(way)
            if distance < nearest:
                nearest, step = distance, move
        total = (1 + overshoot) * (total + step)
    return total
