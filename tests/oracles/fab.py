"""FAB-T written from Croce and Hein 2020 (arXiv 1907.02044), algorithm 1, as a yardstick.

The projections onto hyperplane and box are found by halving; the model is evaluated a second time
for every step, as in the paper. Plain loops, no sample leaves, nothing shared with the package.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ORDER = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}


def project(x: Tensor, w: Tensor, b: Tensor, norm: str) -> Tensor:
    """The nearest points z (N, D) in [0, 1] with w z + b = 0; the corner that comes closest if there is none."""
    value = (w * x).sum(1) + b
    w = torch.where((value > 0)[:, None], -w, w)
    need = value.abs().double()
    room, size = torch.where(w > 0, 1 - x, x).double(), w.abs().double()
    if norm == "l1":
        moved = torch.zeros_like(room)
        for n in range(len(x)):
            rest = float(need[n])
            for d in size[n].argsort(descending=True).tolist():
                if rest <= 0 or size[n, d] == 0:
                    break
                moved[n, d] = min(float(room[n, d]), rest / float(size[n, d]))
                rest -= float(size[n, d] * moved[n, d])
        return (x + w.sign() * moved).to(x.dtype)
    pace = torch.ones_like(size) if norm == "linf" else size
    small, large = torch.zeros_like(need), (1 / pace.clamp_min(1e-30)).amax(1)
    for _ in range(200):
        middle = (small + large) / 2
        short = (size * torch.minimum(room, pace * middle[:, None])).sum(1) < need
        small, large = torch.where(short, middle, small), torch.where(short, large, middle)
    return (x + w.sign() * torch.minimum(room, pace * large[:, None])).to(x.dtype)


def distances(
    model: nn.Module, x: Tensor, y: Tensor, norm: str, *, targets: int, steps: int = 100, eps: float | None = None
) -> Tensor:
    """The smallest changes found (N,); with eps, samples within it sit out the targets that follow."""
    shape, flat = x.shape, x.flatten(1)
    with torch.no_grad():
        logits = model(x)
    best = torch.where(logits.argmax(1) != y, 0.0, torch.inf).to(x.dtype)
    for rank in range(targets):
        aim = logits.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, rank]
        left = (best > (eps or 0.0)).nonzero().squeeze(1)
        if len(left) == 0:
            break
        found = _one_target(model, flat[left], y[left], aim[left], norm, steps, shape[1:])
        best[left] = torch.minimum(best[left], found)
    return best


def _one_target(
    model: nn.Module, x: Tensor, y: Tensor, aim: Tensor, norm: str, steps: int, shape: torch.Size
) -> Tensor:
    point, best = x.clone(), torch.full((len(x),), torch.inf, dtype=x.dtype)
    for _ in range(steps):
        leaf = point.clone().requires_grad_()
        z = model(leaf.view(-1, *shape))
        value = z.gather(1, aim[:, None]).squeeze(1) - z.gather(1, y[:, None]).squeeze(1)
        (w,) = torch.autograd.grad(value.sum(), leaf)
        b = value.detach() - (w * point).sum(1)
        from_point, from_clean = project(point, w, b, norm) - point, project(x, w, b, norm) - x
        near, far = (torch.linalg.vector_norm(d, ord=ORDER[norm], dim=1) for d in (from_point, from_clean))
        alpha = (near / (near + far).clamp_min(1e-12)).clamp(0, 0.1)[:, None]
        point = ((1 - alpha) * (point + 1.05 * from_point) + alpha * (x + 1.05 * from_clean)).clamp(0, 1)
        with torch.no_grad():
            wrong = model(point.view(-1, *shape)).argmax(1) != y
        size = torch.linalg.vector_norm(point - x, ord=ORDER[norm], dim=1)
        best = torch.where(wrong, torch.minimum(best, size), best)
        point = torch.where(wrong[:, None], x + 0.9 * (point - x), point)
    return best
