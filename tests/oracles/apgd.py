"""APGD written from Croce and Hein 2020 (arXiv 2003.01690), algorithm 1, for linf and l2, as a yardstick.

Every sample runs all steps; its step length is decided from the whole history of its losses. Plain
loops, nothing shared with the package.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def loss(name: str, logits: Tensor, y: Tensor, aim: Tensor | None) -> Tensor:
    """Cross-entropy, DLR (eq. 6) or targeted DLR (eq. 7), written entry by entry for four classes or more."""
    if name == "ce":
        return F.cross_entropy(logits, y, reduction="none")
    rows = []
    for z, label, other in zip(logits, y.tolist(), aim.tolist() if aim is not None else y.tolist()):
        first, second, third, fourth = z.sort(descending=True).values[:4]
        if aim is None:
            rival = second if bool(z[label] == first) else first
            rows.append((rival - z[label]) / (first - third + 1e-12))
        else:
            rows.append((z[other] - z[label]) / (first - (third + fourth) / 2 + 1e-12))
    return torch.stack(rows)


def project(x: Tensor, point: Tensor, eps: float, norm: str) -> Tensor:
    delta = point - x
    if norm == "linf":
        delta = delta.clamp(-eps, eps)
    else:
        size = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
        delta = delta * (eps / size).clamp_max(1).view(-1, *[1] * (x.ndim - 1))
    return (x + delta).clamp(0, 1)


def checkpoints(steps: int) -> list[int]:
    """The steps w_j = ceil(p_j N) with p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return sorted({max(1, round(share * steps)) for share in shares[1:] if share < 1})


def fooled(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: str,
    *,
    name: str = "ce",
    aim: Tensor | None = None,
    steps: int = 100,
    seed: int = 0,
) -> Tensor:
    """Which samples (N,) have any wrong point on the path."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    start = noise.sign() * torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype) * eps
    if norm == "l2":
        start = eps * noise / noise.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
    point = previous = best = project(x, x + start, eps, norm)
    hit = torch.zeros(len(x), dtype=torch.bool)
    length = [2 * eps] * len(x)
    history: list[list[float]] = []
    best_loss, best_slope = [-float("inf")] * len(x), torch.zeros_like(x)
    halved, mark = [False] * len(x), [-float("inf")] * len(x)
    checks = checkpoints(steps)
    for k in range(steps + 1):
        leaf = point.clone().requires_grad_()
        logits = model(leaf)
        hit |= logits.argmax(1) != y
        values = loss(name, logits, y, aim)
        (slope,) = torch.autograd.grad(values.sum(), leaf)
        history.append(values.tolist())
        point, best, best_slope, slope = point.clone(), best.clone(), best_slope.clone(), slope.clone()
        for n, value in enumerate(history[-1]):
            if value > best_loss[n]:
                best_loss[n], best[n], best_slope[n] = value, point[n], slope[n]
            if k in checks:
                since = max((w for w in checks if w < k), default=0)
                rises = sum(history[i + 1][n] > history[i][n] for i in range(since, k))
                halve = rises <= 0.75 * (k - since) or (not halved[n] and best_loss[n] <= mark[n])
                if halve:
                    length[n] /= 2
                    point[n], slope[n] = best[n], best_slope[n]
                halved[n], mark[n] = halve, best_loss[n]
        if k == steps:
            break
        way = (
            slope.sign()
            if norm == "linf"
            else slope / slope.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (x.ndim - 1))
        )
        reach = torch.tensor(length, dtype=x.dtype).view(-1, *[1] * (x.ndim - 1))
        ahead = project(x, point + reach * way, eps, norm)
        if k:
            ahead = project(x, point + 0.75 * (ahead - point) + 0.25 * (point - previous), eps, norm)
        point, previous = ahead, point
    return hit


def fooled_at_targets(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: str, *, targets: int, steps: int = 100, seed: int = 0
) -> Tensor:
    """Which samples (N,) fall to targeted DLR at one of the likeliest wrong classes, one run for each."""
    with torch.no_grad():
        order = model(x).argsort(1, descending=True)
    hit = torch.zeros(len(x), dtype=torch.bool)
    for rank in range(targets):
        aims = torch.tensor([[c for c in row if c != label][rank] for row, label in zip(order.tolist(), y.tolist())])
        left = (~hit).nonzero().squeeze(1)
        if len(left):
            hit[left] = fooled(
                model, x[left], y[left], eps, norm, name="dlr-targets", aim=aims[left], steps=steps, seed=seed + rank
            )
    return hit
