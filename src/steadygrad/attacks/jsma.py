"""The Jacobian-based saliency map attack: few entries, changed all the way, two at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.run import Run
from steadygrad.calling import eagerly
from steadygrad.threat import Threat
from steadygrad.values import Count, Limit, Share

_BLOCK = 2**22  # numbers held at once while candidate pairs are compared
_Change = Annotated[
    float, Limit("within [-1, 1] (in ranges of the inputs) and not 0", lambda value: 0 < abs(value) <= 1)
]


@ATTACKS.register(
    "jsma",
    summary="greedy pairs of entries that raise the target's logit and lower the sum of the others'",
    reference="Papernot et al. 2016, arXiv 1511.07528, algorithm 3",
    cost="up to gamma x entries / 2 / theta / pairs steps of 1 forward + 2 backwards, fewer for samples that fall",
    norms=("l0",),
)
@dataclass(frozen=True)
class JSMA(Attack):
    """Moves, at each step, the pair of entries of largest saliency by `theta`, until the prediction changes.

    The saliency of a pair is the product of how much it raises the target's logit and how much it lowers the
    sum of all others; both must be positive. Where a step would end at a bound, the entry counts with the part
    of the step that is left, and at its bound it leaves the search. Without a target the goal is the wrong
    class that was most likely when clean. The radius is the largest number of changed entries; `gamma` limits
    it too. Where room for a single entry is left, the best single one moves.

    Args:
        theta: change per step in ranges of the inputs; negative ones decrease entries.
        gamma: largest share of entries changed (the paper's 14.5 %).
        score: "product" is the paper's; "target" looks at the target's logit alone, for one backward
            pass per step: no longer the paper's map, but on images it needs fewer entries.
        pairs: pairs moved per step; 1 is the paper's.

    >>> JSMA(theta=-1.0).gamma
    0.145
    """

    theta: _Change = 1.0
    gamma: Share = 0.145
    score: Literal["product", "target"] = "product"
    pairs: Count = 1

    @property
    def ascends(self) -> str:
        """One wrong class against the rest; it is chosen from the clean logits."""
        return "rivals"

    def admits(self, x: Tensor, threat: Threat) -> Threat:
        """The first success of a greedy path is its smallest: without a radius one run allows every entry."""
        return threat if threat.eps is not None else threat.at(float(math.prod(x.shape[1:])))

    def search(self, run: Run) -> Tensor | None:
        low, high = run.threat.bounds
        points, goal = run.x, run.aim(0) if run.target is None else run.target
        most = int(self.gamma * points[0].numel() + 1e-9)
        budget = torch.as_tensor(run.threat.eps, device=points.device).expand(len(points)).floor().clamp_max(most)
        changed = torch.zeros_like(points, dtype=torch.bool).flatten(1)
        while True:
            gains = _gains(run, points, goal, self.score == "product")  # (A, 1 or 2, D)
            points, goal, budget, changed, gains = run.drop_solved(points, goal, budget, changed, gains)
            if len(points) == 0:
                return None
            flat = points.flatten(1)
            moved = (flat + self.theta * (high - low)).clamp(low, high)
            able, gains = (flat < high) if self.theta > 0 else (flat > low), gains * (moved - flat)[:, None]
            mask = run.threat.changeable(points)
            able = able if mask is None else able & mask.flatten(1)
            chosen = torch.zeros_like(changed)
            for _ in range(self.pairs):
                room = budget - (changed | chosen).sum(1)
                free = able & ~chosen & (changed | (room > 0)[:, None])
                chosen = chosen | _choose(gains, free, room)
            moved = torch.where(chosen, moved, flat)
            going = (moved != flat).any(1)
            points, changed = moved.view_as(points), changed | chosen
            if run.goal != "strongest":
                points, goal, budget, changed = run.keep(going, points, goal, budget, changed)
            if not bool(going.any()):
                return points if run.goal == "strongest" else None


def _gains(run: Run, points: Tensor, goal: Tensor, others: bool) -> Tensor:
    """Slopes of the goal's logit, and of minus the sum of the others (A, 1 or 2, D), each scaled to at most 1."""

    def functions(logits: Tensor) -> Tensor:
        wanted = logits.gather(1, goal[:, None])
        return torch.cat([wanted, wanted - logits.sum(1, keepdim=True)], 1) if others else wanted

    with eagerly():  # what is compiled goes back once for each forward
        _, slopes = run.slopes(points, functions)
    flat = slopes.flatten(2)
    flat = flat.float() if flat.dtype.itemsize < 4 else flat
    # In at least float32 and with a largest entry of 1 products of tiny slopes do not vanish.
    return flat / flat.abs().amax(2, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)


def _choose(gains: Tensor, able: Tensor, room: Tensor) -> Tensor:
    """Which entries (A, D) move: the best pair, the best single one where room for one is left, or none."""
    raised, lowered = gains[:, 0], gains[:, -1]
    if gains.shape[1] == 2:
        pair, found = best_pair(raised, lowered, able)
        score = torch.where(able & (raised > 0) & (lowered > 0), raised * lowered, -1.0)
    else:
        score = torch.where(able & (raised > 0), raised, -1.0)
        two, pair = score.topk(2, dim=1)
        # Where one entry alone helps, the pair is that entry.
        pair, found = torch.where(two > 0, pair, pair[:, :1]), two[:, 0] > 0
    single = room == 1
    if bool(single.any()):
        value, entry = score.max(1)
        pair = torch.where(single[:, None], entry[:, None], pair)
        found = torch.where(single, value >= 0, found)
    return torch.zeros_like(able).scatter_(1, pair, found[:, None].expand(-1, 2))


def best_pair(a: Tensor, c: Tensor, able: Tensor) -> tuple[Tensor, Tensor]:
    """The pair p, q of able entries with the largest (a_p + a_q)(c_p + c_q), both sums positive.

    Exact, in memory of the order of the entries. Both sums only grow when a member of a pair is
    exchanged for an entry that is larger in a and in c; so there is a best pair among the entries
    that at most one other exceeds in both. In order of falling a, these are the entries whose c lies
    above the second largest c so far.

    Args:
        a, c: (N, D).
        able: (N, D) bool.

    Returns:
        Indices (N, 2), and whether there is such a pair (N,).

    >>> best_pair(torch.tensor([[3.0, 1.0, -1.0]]), torch.tensor([[-1.0, 2.0, 9.0]]), torch.ones(1, 3) > 0)
    (tensor([[0, 2]]), tensor([True]))
    """
    lowest = -torch.inf
    a, order = torch.where(able, a, lowest).sort(dim=1, descending=True, stable=True)
    c = torch.where(able, c, lowest).gather(1, order)
    first = c.cummax(1).values
    loser = torch.minimum(c[:, 1:], first[:, :-1])  # of each entry and the largest before it
    second = torch.nn.functional.pad(loser, (2, 0), value=lowest)[:, :-1].cummax(1).values
    keep = c > second
    rows, columns = keep.nonzero(as_tuple=True)
    slot = (keep.cumsum(1) - 1)[rows, columns]
    width = max(2, int(slot.max()) + 1) if len(slot) else 2
    place = torch.zeros(len(a), width, dtype=torch.int64, device=a.device)
    place[rows, slot] = columns
    real = torch.arange(width, device=a.device) < keep.sum(1, keepdim=True)
    chosen, found = _search_pairs(
        torch.where(real, a.gather(1, place), lowest), torch.where(real, c.gather(1, place), lowest)
    )
    return order.gather(1, place.gather(1, chosen)), found


def _search_pairs(a: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The best pair among few candidates (N, M): all are compared, a block of first members at a time."""
    count, width = a.shape
    best = a.new_zeros(count)
    chosen = torch.zeros(count, 2, dtype=torch.int64, device=a.device)
    found = torch.zeros(count, dtype=torch.bool, device=a.device)
    block = max(1, _BLOCK // (count * width))
    column = torch.arange(width, device=a.device)
    for start in range(0, width, block):
        rows = column[start : start + block]
        sums, drops = (t[:, rows, None] + t[:, None, :] for t in (a, c))  # (N, block, M)
        valid = (sums > 0) & (drops > 0) & (column > rows[:, None])
        value, at = torch.where(valid, sums * drops, -1.0).flatten(1).max(1)
        better = (value >= 0) & (~found | (value > best))
        pair = torch.stack([start + at // width, at % width], 1)
        best, chosen = torch.where(better, value, best), torch.where(better[:, None], pair, chosen)
        found = found | better
    return chosen, found
