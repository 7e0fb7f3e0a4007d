"""The smallest radius at which an attack made for a fixed radius succeeds, per sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from steadygrad.attacks.attack_result import AttackResult
from steadygrad.attacks.run import Case

_DOUBLINGS = 8
_HALVINGS = 24  # fewer are needed where the first radius was not already too large
_RESOLUTION = 2**-6


def smallest_by_bisection(attack: Callable[[Case], AttackResult], case: Case) -> AttackResult:
    """Double the radius of each sample until the attack succeeds, then halve the gap.

    Starting small keeps a step that is relative to the radius small where the boundary is near. The distances
    carry a resolution of 2^-6 of their own size, down to a millionth of the largest radius; in l0 they are whole.
    """
    largest = case.threat.largest(case.x)
    low = torch.zeros_like(largest)
    high = largest / 2**_DOUBLINGS
    if case.threat.norm == "l0":
        high = high.clamp_min(1.0)
    best = AttackResult.of_nothing(case.x)

    def attempt(rows: Tensor, radius: Tensor) -> Tensor:
        found = attack(case.at(rows, radius))
        best.take(rows, found)
        return found.success

    rows = torch.arange(len(largest), device=largest.device)
    for _ in range(_DOUBLINGS + 1):
        if len(rows) == 0:
            break
        hit = attempt(rows, high[rows])
        rows = rows[~hit]
        low[rows] = high[rows]
        high[rows] = torch.minimum(2 * high[rows], largest[rows])
    for _ in range(_HALVINGS):
        # A point that lies well inside its ball is a smaller radius than the one tried.
        high = torch.minimum(high, best.distance)
        gap = torch.ones_like(high) if case.threat.norm == "l0" else (_RESOLUTION * high).clamp_min(1e-6 * largest)
        rows = (best.success & (high - low > gap) & (best.distance > 0)).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        middle = (low[rows] + high[rows]) / 2
        hit = attempt(rows, middle)
        high[rows[hit]] = middle[hit]
        low[rows[~hit]] = middle[~hit]
    return best
