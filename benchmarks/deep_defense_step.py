"""What one training step of Deep Defense costs: the class chosen first, against all classes with a graph.

    python benchmarks/deep_defense_step.py [--batch 100] [--repeats 7]

Prints seconds per step (loss and weight gradient, minimum of interleaved repeats) on an MNIST-sized LeNet, as ratios to
a plain step, and the memory that the graph holds, counted over the tensors saved for the backward pass.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import steadygrad as sg
from steadygrad.defenses import DeepDefense, InputGradientPenalty, Plain


def all_classes(model: nn.Module, x: Tensor, y: Tensor, defense: DeepDefense) -> Tensor:
    """The same loss with second-order graphs through the differences to all classes, for right samples."""
    total = torch.zeros_like(x)
    active = torch.arange(len(x))
    for _ in range(defense.steps):
        points = x[active] + (1 + defense.overshoot) * total[active]
        points = points if points.requires_grad else points.requires_grad_()
        logits = model(points)
        stands = logits.argmax(1) == y[active]
        if not bool(stands.any()):
            break
        own = logits.gather(1, y[active, None])
        changes, lengths = [], []
        for k in range(logits.shape[1]):
            gap = logits[:, k] - own[:, 0]
            (w,) = torch.autograd.grad(gap.sum(), points, create_graph=True)
            square = w.flatten(1).square().sum(1)
            other = y[active] != k
            lengths.append(torch.where(other, gap.abs() / square.clamp_min(1e-30).sqrt(), math.inf))
            changes.append((gap.abs() / square.clamp_min(1e-30)).view(-1, 1, 1, 1) * w)
        nearest = torch.stack(lengths).argmin(0)
        step = torch.stack(changes)[nearest, torch.arange(len(active))]
        total = total.index_add(0, active, torch.where(stands.view(-1, 1, 1, 1), step, 0.0))
        active = active[stands]
    rho = (1 + defense.overshoot) * total.flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    return defense.weight * torch.exp(-defense.correct * rho).mean()


def held(loss: Callable[[], Tensor]) -> int:
    """Bytes of the distinct storages that the graph of a loss saves for its backward pass."""
    seen: dict[int, int] = {}
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        kept.append(tensor)  # or the address would be used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss()
    return sum(seen.values())


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch", type=int, default=100)
    options.add_argument("--repeats", type=int, default=7)
    given = options.parse_args()
    model = sg.models.build("lenet", (1, 28, 28), 10, seed=0)
    x = torch.rand(given.batch, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    defense = DeepDefense(weight=15.0)
    weights = list(model.parameters())

    losses: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: Plain().loss(model, x, y).total,
        "input gradient": lambda: InputGradientPenalty(1.0).loss(model, x, y).total,
        "deep defense": lambda: defense.loss(model, x, y).total,
        "deep defense, all ten chosen first": lambda: DeepDefense(weight=15.0, candidates=None).loss(model, x, y).total,
        "deep defense, recompute=25": lambda: DeepDefense(weight=15.0, recompute=25).loss(model, x, y).total,
        "all classes with a graph": lambda: Plain().loss(model, x, y).total + all_classes(model, x, y, defense),
    }
    print(
        f"LeNet, batch {given.batch}, minimum of {given.repeats} interleaved repeats, {torch.get_num_threads()} threads"
    )
    values = {name: float(loss().detach()) for name, loss in losses.items()}
    best = dict.fromkeys(losses, math.inf)
    for _ in range(given.repeats):
        for name, loss in losses.items():
            start = time.perf_counter()
            torch.autograd.grad(loss(), weights)
            best[name] = min(best[name], time.perf_counter() - start)
    print(f"{'loss':36}{'value':>10}{'ms':>9}{'x plain':>9}{'MiB held':>10}")
    for name, loss in losses.items():
        # Recomputation holds no graph between the passes: what it saves on the way is let go.
        memory = "-" if "recompute" in name else f"{held(loss) / 2**20:.1f}"
        print(f"{name:36}{values[name]:10.5f}{1e3 * best[name]:9.1f}{best[name] / best['plain']:9.2f}{memory:>10}")


if __name__ == "__main__":
    main()
