"""Local optimality of the searches for the smallest change, in AttackBench's words.

    python -m benchmarks.optimality --out runs/optimality

For each norm the nearest points of all searches, libraries and budgets are the best known ones. A search is
measured by the area under its curve of accuracy over radii, up to the radius at which the best known ones leave
nothing: 1 where it is that of the best known, 0 where it found nothing (Cinà et al. 2025, arXiv 2404.19460). The
areas are exact. Every cell is kept: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

import steadygrad as sg
from benchmarks.attacks.meter import Meter, quiet
from benchmarks.attacks.subject import subject
from benchmarks.optimality.result import write
from benchmarks.optimality.searches import Search, searches
from steadygrad import files
from steadygrad.attacks import PGD
from steadygrad.attacks.attack_result import judge
from steadygrad.defenses import AdversarialTraining
from steadygrad.threat import Norm, Threat

MODELS = ("plain", "pgd", "silu")
BUDGETS = (100, 200, 1000)


def victim(name: str, out: Path, samples: int, seed: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A network with the first test images that it gets right.

    LeNet on MNIST, plain or trained on by PGD, or the ConvNet with SiLU on CIFAR-10.
    """
    if name == "silu":
        return (made := smooth_convnet(out / name, seed)), *right_of(made, "cifar10", samples)
    on = subject("mnist", None, samples, out=out / "plain", seed=seed, device="cpu")
    if name == "plain":
        return on.model.eval().requires_grad_(False), on.x, on.y
    train, defense = (
        sg.data.load("mnist", "train").take(20_000),
        AdversarialTraining(eps=0.2, attack=PGD(steps=5, loss="ce")),
    )
    made = sg.fit(on.model, defense, train, settings=sg.FitSettings(epochs=2), out=out / name, seed=seed).classifier
    return made, *right_of(made, "mnist", samples)


def smooth_convnet(out: Path, seed: int) -> nn.Module:
    """The ConvNet for CIFAR-10 with SiLU in place of ReLU, trained plainly."""
    train = sg.data.load("cifar10", "train")
    model = sg.models.build("convnet", train.shape, train.classes, mean=0.5, std=0.25, seed=seed)
    for parent in list(model.modules()):
        for place, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, place, nn.SiLU())
    how = sg.FitSettings(epochs=6, batch_size=64, lr=2e-3, schedule="cosine")
    return sg.fit(model, sg.defenses.Plain(), train.draw(25_000, seed), settings=how, out=out, seed=seed).classifier


def right_of(model: nn.Module, data: str, samples: int) -> tuple[Tensor, Tensor]:
    """The first test images (N, *) and labels (N,) that a model gets right; it is frozen for that."""
    x, y = sg.data.load(data, "test").take(4 * samples + 100).tensors()
    with torch.no_grad():
        right = (model.eval().requires_grad_(False)(x).argmax(1) == y).nonzero().squeeze(1)[:samples]
    return x[right], y[right]


def measured(search: Search, model: nn.Module, x: Tensor, y: Tensor, passes: int, seed: int) -> dict[str, Any]:
    """Distances (None where nothing was found) and passes of a sample, or the error."""
    meter, threat = Meter(copy.deepcopy(model)), Threat(search.norm)
    try:
        with quiet(seed):
            points = search.run(meter, x.clone(), y, passes).detach()
    except Exception as error:  # what code of others meets here is a result
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    success, _ = judge(model, x, torch.nan_to_num(points), y, threat)
    distance = threat.distance(points - x).tolist()
    return {
        "error": None,
        "distances": [d if ok else None for d, ok in zip(distance, success.tolist(), strict=True)],
        "passes": (meter.forwards + meter.backwards) / len(x),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/optimality"))
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=MODELS, action="append", help="all, if not given")
    parser.add_argument("--norm", choices=get_args(Norm), action="append", help="all, if not given")
    given = parser.parse_args()
    for name in given.model or MODELS:
        model, x, y = victim(name, given.out, given.samples, given.seed)
        for norm in given.norm or get_args(Norm):
            for search in searches(norm):
                for passes in BUDGETS:
                    what = {"model": name, "norm": norm, "library": search.library, "search": search.name}
                    what |= {"budget": passes, "samples": given.samples, "seed": given.seed}
                    cell = given.out / "cells" / f"{files.key(what)}.json"
                    if not cell.exists():
                        row = {**what, **measured(search, model, x, y, passes, given.seed)}
                        files.write_json(cell, row)
                        print(name, norm, search.library, search.name, passes, row["error"] or "", flush=True)
    rows = [files.read_json(cell)[0] for cell in sorted((given.out / "cells").glob("*.json"))]
    write([row for row in rows if (row["samples"], row["seed"]) == (given.samples, given.seed)], given.out)


if __name__ == "__main__":
    main()
