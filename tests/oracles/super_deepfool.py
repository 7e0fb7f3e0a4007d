"""SuperDeepFool(inf, 1) for one sample, from Abdolahpourrostam et al. 2023 (algorithm 2), all classes, no bounds."""

from __future__ import annotations

import numpy as np
from torch import nn

from oracles.deepfool import Array, _look


def attack(model: nn.Module, x: Array, y: int, *, rounds: int = 20) -> list[Array]:
    """The wrong points (D,) on the way; a model of flat inputs (N, D)."""
    total, seen = np.zeros_like(x), []
    for _ in range(rounds):
        # DeepFool from the point so far: its change is lengthened together with what came before.
        total = _fool(model, x, total, y)
        seen.append(x + total)
        z, w = _look(model, x + total)
        way = w[z.argmax()] - w[y]
        total = (total @ way) / (way @ way) * way
        if _look(model, x + total)[0].argmax() != y:
            return [*seen, x + total]
    return seen


def _fool(model: nn.Module, x: Array, start: Array, y: int) -> Array:
    total = start
    for _ in range(50):
        z, w = _look(model, x + total)
        if z.argmax() != y:
            break
        ways = [(w[k] - w[y], z[k] - z[y]) for k in range(len(z)) if k != y]
        steps = [abs(gap) / (way @ way) * way for way, gap in ways]
        total = 1.005 * (total + min(steps, key=np.linalg.norm))
    return total
