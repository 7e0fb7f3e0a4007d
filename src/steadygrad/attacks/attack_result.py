"""What an attack found, and the verdict it has no say in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad.attacks.expectation import network_of
from steadygrad.attacks.losses import is_adversarial
from steadygrad.threat import Threat


@dataclass(frozen=True)
class AttackResult:
    """What an attack found, as judged by the engine.

    Attributes:
        inputs: the adversarial inputs (N, *); the clean ones where nothing was found.
        success: (N,) bool; a clean mistake is a success at distance 0.
        distance: (N,) in the threat's norm; infinite where nothing was found.
        forwards, backwards: (N,) passes spent on each sample, the judge's included.
        zero_gradient: (N,) bool; the loss had no gradient at all at some point of the search.
        found_by: (N,) number of the one of `attack.members()` that found it; -1 for nothing and clean mistakes.
    """

    inputs: Tensor
    success: Tensor
    distance: Tensor
    forwards: Tensor
    backwards: Tensor
    zero_gradient: Tensor
    found_by: Tensor

    @classmethod
    def of_nothing(cls, x: Tensor) -> AttackResult:
        """The result for inputs x (N, *) before anything was tried."""
        none = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        far = x.new_full((len(x),), torch.inf)
        return cls(x.detach().clone(), none > 0, far, none, none.clone(), none > 0, none - 1)

    def take(self, rows: Tensor, found: AttackResult, member: int = 0) -> None:
        """Take in what a member found on some rows (R,): the nearer inputs count, passes add up."""
        self.forwards[rows] += found.forwards
        self.backwards[rows] += found.backwards
        self.zero_gradient[rows] |= found.zero_gradient
        nearer = found.success & (found.distance < self.distance[rows])
        hit = rows[nearer]
        self.inputs[hit], self.distance[hit] = found.inputs[nearer], found.distance[nearer]
        self.success[hit] = True
        by = found.found_by[nearer]
        self.found_by[hit] = torch.where(by >= 0, by + member, by)


def judge(
    model: nn.Module,
    x: Tensor,
    candidates: Tensor,
    y: Tensor,
    threat: Threat,
    target: Tensor | None = None,
    considered: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Which candidates (N,) are allowed and wrong when run again in another batch composition.

    The considered ones are run in reverse order beside their clean inputs, so that no candidate
    meets the neighbors among which it was found. Returns success and forwards spent, both (N,).
    """
    passes = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    success = passes > 0
    rows = torch.arange(len(x), device=x.device) if considered is None else considered.nonzero().squeeze(1)
    if len(rows) == 0:
        return success, passes
    rows = rows.flip(0)
    with torch.no_grad():
        # In halves, so that the doubled batch needs no more memory than the search did.
        parts = rows.chunk(2)
        logits = torch.cat([model(torch.cat([candidates[part], x[part]]))[: len(part)] for part in parts])
    success[rows] = is_adversarial(logits, y[rows], target[rows] if target is not None else None)
    success &= threat.allows(x, candidates)
    passes[rows] = 2 * network_of(model)[1]
    return success, passes
