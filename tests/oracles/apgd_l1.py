"""L1 APGD written from Croce and Hein 2021 (arXiv 2103.01208), section 4 and algorithm 1, as a yardstick.

The update moves along the signs of the k entries with the largest gradient, projects onto the exact
intersection of ball and box, lets k follow the sparsity of the best point found, and runs the radii
3 eps, 2 eps, eps one after the other. Plain loops, no active sets, nothing shared with the package.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def project(x: Tensor, point: Tensor, eps: float) -> Tensor:
    """The nearest points (N, D) in [0, 1] with |point - x|_1 <= eps: the threshold is found by halving."""
    u, low, high = (point - x).double(), (0 - x).double(), (1 - x).double()

    def at(t: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(u.sign() * (u.abs() - t[:, None]).clamp_min(0), low), high)

    small, large = torch.zeros(len(x), dtype=torch.float64), u.abs().amax(1)
    fits = at(small).abs().sum(1) <= eps
    for _ in range(60):
        middle = (small + large) / 2
        too_far = at(middle).abs().sum(1) > eps
        small, large = torch.where(too_far, middle, small), torch.where(too_far, large, middle)
    return (x + at(torch.where(fits, torch.zeros_like(large), large))).to(x.dtype)


def _loss(name: str, logits: Tensor, y: Tensor) -> Tensor:
    if name == "ce":
        return F.cross_entropy(logits, y, reduction="none")
    own = logits.gather(1, y[:, None]).squeeze(1)
    return logits.masked_fill(F.one_hot(y, logits.shape[1]).bool(), -math.inf).amax(1) - own


def _ascend(
    model: nn.Module, x: Tensor, y: Tensor, start: Tensor, eps: float, steps: int, loss: str, sparsity: Tensor
) -> tuple[Tensor, Tensor]:
    """The best points (N, D) of one radius, and which samples (N,) were fooled on the way."""
    entries, every = x.shape[1], max(int(0.04 * steps), 1)
    point, best, best_loss = start.clone(), start.clone(), torch.full((len(x),), -math.inf)
    best_slope = torch.zeros_like(x)
    length = torch.full((len(x),), eps)
    before = torch.full((len(x),), float(entries))
    fooled = torch.zeros(len(x), dtype=torch.bool)
    for i in range(steps + 1):
        leaf = point.clone().requires_grad_()
        logits = model(leaf)
        values = _loss(loss, logits, y)
        (slope,) = torch.autograd.grad(values.sum(), leaf)
        inside = (point - x).abs().sum(1) <= eps * (1 + 1e-5)
        fooled |= inside & (logits.argmax(1) != y)
        better = values.detach() > best_loss
        best_loss = torch.where(better, values.detach(), best_loss)
        best, best_slope = (torch.where(better[:, None], a, b) for a, b in ((point, best), (slope, best_slope)))
        if i and i % every == 0:
            count = ((best - x).abs() > 1e-7).sum(1).float()
            sparser = count < 0.95 * before
            sparsity = count / 1.5
            length = torch.where(sparser, torch.full_like(length, eps), (length / 1.5).clamp_min(eps / 10))
            point, slope = (torch.where(sparser[:, None], a, b) for a, b in ((best, point), (best_slope, slope)))
            before = count
        rank = slope.abs().argsort(1, descending=True).argsort(1)
        kept = torch.where(rank < sparsity[:, None].floor().clamp_min(1), slope.sign(), 0.0)
        way = kept / kept.abs().sum(1, keepdim=True).clamp_min(1)
        point = project(x, point + length[:, None] * way, eps)
    return best, fooled


def fooled(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *, steps: int = 100, loss: str = "ce", seed: int = 0
) -> Tensor:
    """Which samples (N,) fall to L1 APGD within eps; inputs (N, *) in [0, 1]."""
    shape = x.shape

    def flat_model(z: Tensor) -> Tensor:
        return model(z.view(shape))

    x = x.flatten(1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    sparsity = torch.full((len(x),), 0.2 * x.shape[1])
    point = project(x, x + noise, 3 * eps)
    for factor, share in ((3, 0.3), (2, 0.3), (1, 0.4)):
        start = project(x, point, factor * eps)
        point, hit = _ascend(flat_model, x, y, start, factor * eps, round(share * steps), loss, sparsity)
        sparsity = ((point - x).abs() > 1e-7).sum(1) / 1.5
    return hit | (model(x.view(shape)).argmax(1) != y)
