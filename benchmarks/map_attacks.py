"""Attacks on maps beside random signs and a slow search: LeNet on MNIST, ConvNet and a residual net on CIFAR-10.

    python -m benchmarks.map_attacks --result benchmarks/results/map_attacks.json

trains the networks in minutes, plain, and attacks the saliency maps of the first test images. Beside it: as many
random points at the border of the threat as an attack has steps, of another seed than its own baseline; and, on the
first `--slow` images, a slow search for the same goal: ten restarts of 60 steps, with log-sum-exp pooling and softplus
annealed over six fixed ranges, from blunt to sharp. Deviations are those of the maps of the network itself. Every cell
is kept: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import steadygrad as sg
from steadygrad import files, provenance, randomness
from steadygrad.attacks import IFIA, AttributionPGD
from steadygrad.attacks.maps.attribution_attacks import ExplanationAttack
from steadygrad.attacks.maps.map_losses import MAP_LOSSES, Reference
from steadygrad.attributions import Saliency
from steadygrad.measuring.code_keys import code_of
from steadygrad.measuring.statistics import bootstrap, wilson
from steadygrad.smoothing import Lead

GOALS: dict[str, ExplanationAttack] = {
    "top-k": IFIA(goal="top-k"),
    "mass-center": IFIA(goal="mass-center"),
    "euclidean": AttributionPGD(distance="euclidean"),
    "cosine": AttributionPGD(distance="cosine"),
}
NETWORKS: dict[str, tuple[str, int, int, float, dict[str, Any]]] = {
    "lenet": ("mnist", 20_000, 3, 0.1, {}),
    "convnet": ("cifar10", 40_000, 5, 8 / 255, {"mean": 0.5, "std": 0.25}),
    "resnet18": ("cifar10", 20_000, 4, 8 / 255, {"mean": 0.5, "std": 0.25, "width": 8}),
}
"""Data, training samples, epochs, eps and settings by architecture."""

_SLOW = [(beta / 10, beta) for beta in (10.0, 30.0, 100.0, 300.0, 1000.0)] + [(1.0, 300.0)]


@dataclass(frozen=True)
class Slow(AttributionPGD):
    """The same ascent, long, through models with betas of their own, in units of what each function is applied to."""

    goal: str = "euclidean"
    betas: tuple[float, float] = (1.0, 100.0)
    k: float = 0.1

    @property
    def objective(self) -> Any:
        return self.goal

    def follow(self, model: nn.Module, x: Tensor, target: Tensor) -> Lead:
        low, high = self.betas
        return lambda share: sg.smooth(model, low * (high / low) ** share)


def network(name: str, out: Path) -> sg.Classifier:
    """The trained network, from `out` if it is there."""
    data, count, epochs, _, settings = NETWORKS[name]
    train = sg.data.load(data, "train")
    model = sg.models.build(name, train.shape, train.classes, **settings)
    lr = 2e-3 if name == "resnet18" else 1e-3
    how = sg.FitSettings(epochs=epochs, lr=lr, schedule="cosine", channels_last=name == "resnet18")
    return sg.fit(model, sg.defenses.Plain(), train.take(count, seed=0), settings=how, out=out / name).classifier


def slow(model: nn.Module, x: Tensor, threat: sg.Threat, goal: str) -> dict[str, Any]:
    """The furthest (N,) of ten restarts of 60 steps, over six ranges of beta."""
    best, seeds = torch.zeros(len(x)), randomness.sample_seeds(len(x), None)
    for i, betas in enumerate(_SLOW):
        restarts = 2 if i < 4 else 1
        search = Slow(steps=60, restarts=restarts, noise_draws=0, goal=goal, betas=betas)
        best = torch.maximum(best, search(model, x, None, threat, generator=seeds + 7 * i).deviation)
    return {goal: best.tolist()}


def random_points(model: nn.Module, x: Tensor, threat: sg.Threat, draws: int) -> dict[str, Any]:
    """The furthest (N,) of random signs that leave the prediction as it was, for every goal."""
    target, maps = model(x).argmax(1), Saliency()
    reference = Reference(maps(model, x, target))
    best = {goal: torch.full((len(x),), -torch.inf) for goal in GOALS}
    for draw in range(draws):
        signs = 2 * (randomness.uniform(randomness.sample_seeds(len(x), randomness.fresh(99)), x, draw) < 0.5) - 1
        points = threat.constrain(x, x + signs * threat.radius(x)[:, None, None, None])
        same, moved = model(points).argmax(1) == target, maps(model, points, target)
        for goal, row in best.items():
            best[goal] = torch.where(same, torch.maximum(row, MAP_LOSSES[goal].deviation(moved, reference)), row)
    return {goal: row.clamp_min(0).tolist() for goal, row in best.items()}


def attacked(model: nn.Module, x: Tensor, threat: sg.Threat, goal: str, cost: dict[str, int]) -> dict[str, Any]:
    """Deviations, and passes for an image, of the attack on some images."""
    found = replace(GOALS[goal], **cost)(model, x, None, threat)
    both = [found] if found.noise is None else [found, found.noise]
    spent = [sum(float(getattr(r, way).double().mean()) for r in both) for way in ("forwards", "backwards")]
    return {goal: found.deviation.tolist(), "passes": spent}


Cells = list[dict[str, Any]]


def summary(goal: str, *cells: Cells) -> dict[str, Any]:
    """Shares and medians with their intervals."""
    ours, random, best = (np.concatenate([[], *(c[goal] for c in kind)]) for kind in cells)
    share = wilson(int((ours >= random).sum()), len(ours))
    # Above 1 where the attack found more than the slow search.
    over = bootstrap(np.median, ours[: len(best)] / np.maximum(best, 1e-30)) if len(best) else None
    return {
        "images": len(ours),
        "median": float(np.median(ours)),
        "median_of_random_points": float(np.median(random)),
        "at_least_random": [share.value, share.low, share.high],
        "slow_images": len(best),
        "median_over_slow": [over.value, over.low, over.high] if over else None,
        "passes": np.mean([c["passes"] for c in cells[0]], axis=0).tolist(),
    }


def rows_of(name: str, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each goal."""
    data, _, _, eps, _ = NETWORKS[name]
    model, threat = network(name, given.out).eval().requires_grad_(False), sg.linf(eps)
    x, _ = sg.data.load(data, "test").take(given.images).tensors()
    cost, total = {"steps": given.steps, "restarts": given.restarts}, given.steps * given.restarts

    def parts(kind: str, count: int, size: int, measure: Callable[..., dict[str, Any]], *how: Any) -> Cells:
        found = []
        for first in range(0, count, size):
            last = min(first + size, count)
            place = given.out / f"{name}-{kind}-{first}-{last}.json"
            if not place.exists():
                files.write_json(place, measure(model, x[first:last], threat, *how))
            found.append(files.read_json(place)[0])
        return found

    random = parts(f"random-{total}", given.images, 50, random_points, total)
    for goal in given.goal or GOALS:
        found = parts(f"{goal}-{given.steps}-{given.restarts}", given.images, 50, attacked, goal, cost)
        best = parts(f"{goal}-slow", given.slow, 10, slow, goal)
        yield {"network": name, "goal": goal, "eps": eps, **summary(goal, found, random, best)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--slow", type=int, default=50, help="images of the slow search, 0 to leave it out")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--network", choices=NETWORKS, action="append", help="all, if not given")
    parser.add_argument("--goal", choices=GOALS, action="append", help="all, if not given")
    parser.add_argument("--out", type=Path, default=Path("runs/map_attacks"))
    parser.add_argument("--result", type=Path, help="write the figures to this JSON file, too")
    given, rows = parser.parse_args(), []
    for name in given.network or NETWORKS:
        for row in rows_of(name, given):
            print(row, flush=True)
            rows.append(row)
    if given.result:
        about = {"steps": given.steps, "restarts": given.restarts, "code": code_of(*map(type, GOALS.values()))}
        about |= {"version": sg.__version__, "machine": provenance.machine(), "made": provenance.now()}
        files.write_json(given.result, {**about, "rows": rows})


if __name__ == "__main__":
    main()
