"""JSMA for one sample, from the formulas of Papernot et al. 2016 (algorithm 3): all rows, all pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]


def best_score(a: Array, c: Array, able: Sequence[bool]) -> float | None:
    """The largest (a_p + a_q)(c_p + c_q) over able pairs with both sums positive, None if there is none."""
    entries = [i for i, free in enumerate(able) if free]
    sums = [(a[p] + a[q], c[p] + c[q]) for p, q in itertools.combinations(entries, 2)]
    scores = [s * t for s, t in sums if s > 0 and t > 0]
    return max(scores) if scores else None


def _move(jacobian: Array, target: int, steps: Array, able: list[bool], room: int) -> tuple[int, ...]:
    """Where a step would pass a bound, an entry counts with the part of it that is left."""
    others = jacobian.sum(0) - jacobian[target]
    entries = [i for i, free in enumerate(able) if free]
    groups = [(p,) for p in entries] if room == 1 else list(itertools.combinations(entries, 2))
    best: tuple[int, ...] = ()
    highest = 0.0
    for group in groups:
        alpha = sum(steps[p] * jacobian[target, p] for p in group)
        beta = sum(steps[p] * others[p] for p in group)
        if alpha > 0 and beta < 0 and -alpha * beta > highest:
            best, highest = group, -alpha * beta
    return best


def attack(model: nn.Module, x: Array, y: int, target: int | None, theta: float, most: int) -> tuple[Array, bool, int]:
    """The last point, whether it is wrong (or the target), and the Jacobians taken.

    Without a target the goal is the second-best class of the clean input.
    """
    start = torch.from_numpy(x)[None]
    clean = model(start)[0].tolist()
    goal = target if target is not None else max((k for k in range(len(clean)) if k != y), key=clean.__getitem__)
    point, changed, taken = x.flatten().copy(), set[int](), 0
    while True:
        leaf = torch.from_numpy(point.reshape(x.shape))[None].requires_grad_()
        logits = model(leaf)[0]
        taken += 1
        label = int(logits.argmax())
        if label == target or (target is None and label != y):
            return point.reshape(x.shape), True, taken
        rows = [torch.autograd.grad(z, leaf, retain_graph=True)[0].flatten().numpy() for z in logits]
        room = most - len(changed)
        able = [(v < 1 if theta > 0 else v > 0) and (room > 0 or i in changed) for i, v in enumerate(point)]
        group = _move(np.stack(rows), goal, np.clip(point + theta, 0.0, 1.0) - point, able, room)
        if not group:
            return point.reshape(x.shape), False, taken
        for p in group:
            point[p] = min(1.0, max(0.0, point[p] + theta))
            changed.add(p)
