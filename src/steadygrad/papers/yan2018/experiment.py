"""The experiment: a reference model and four ways of hardening it, judged by the paper's scores and by others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steadygrad import models
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.evaluation import mean_image
from steadygrad.measuring.statistics import mean, quantiles, share_of
from steadygrad.papers import published
from steadygrad.papers.base import Findings, Paper, Request
from steadygrad.papers.bench import Bench
from steadygrad.papers.lessons import Lesson, Trained, learn
from steadygrad.papers.store import Arrays, Store
from steadygrad.papers.yan2018 import claims, pages, recipes
from steadygrad.papers.yan2018.measures import MULTIPLES, Measured, measure
from steadygrad.papers.yan2018.recipes import Recipe, Way
from steadygrad.papers.yan2018.search import searched

__all__ = ["SCALES", "YAN2018", "Scale"]

_HELD_OUT = 1 / 12
_SEARCH_PART = 0.4


@dataclass(frozen=True)
class Scale:
    """How much is trained and measured.

    Args:
        part: of the epochs of the recipe.
        training, test: largest numbers of samples; None for all.
        distances: first test images for DDN.
        suite: first test images for the worst case of the suite.
        validation: validation images that decide a search.
    """

    part: float
    training: int | None
    test: int | None
    distances: int
    suite: int
    validation: int


SCALES = {
    "smoke": Scale(0.1, 200, 60, 10, 10, 50),
    "short": Scale(0.34, None, 2000, 300, 200, 1000),
    "paper": Scale(1.0, None, None, 1000, 500, 2000),
}


def plan(request: Request, train: Dataset, test: Dataset) -> dict[str, Any]:
    """All that the numbers depend on besides data, scale and seed."""
    network = YAN2018.model_of(request)
    recipe = recipes.load(network).shortened(SCALES[request.scale].part)
    ways = {"reference": recipe.reference} | {n: recipe.method(n) for n in recipe.methods(request.combined)}
    return {
        "recipe": {name: recipes.plain(way) for name, way in ways.items()},
        "grids": recipe.table.get("search", {}) if request.search else {},
        "measured": dataclasses.asdict(SCALES[request.scale]),
    }


def run(request: Request, train: Dataset, test: Dataset, folder: Path, store: Store) -> Findings:
    """Train the reference and the four methods, and measure all five."""
    scale, network = SCALES[request.scale], YAN2018.model_of(request)
    train = train if scale.training is None else train.take(scale.training, seed=request.seed)
    test = test if scale.test is None else test.take(scale.test)
    recipe = recipes.load(network).shortened(scale.part)
    center = mean_image(train)
    room = _Room(request, network, folder)
    changes: Mapping[str, Mapping[str, Any]] = {}
    tried: dict[str, Any] | None = None
    seconds: dict[str, float] = {}
    if request.search:
        changes, tried, seconds = _searched(room, recipe, train, scale, store, center)
    trained = {"reference": room.train("reference", recipe.reference, train)}
    names = recipe.methods(request.combined)
    for name in names:
        way = recipe.method(name, changes.get(name))
        trained[name] = room.train(name, way, train, trained["reference"].classifier)
    seconds |= {f"train {name}": t.seconds for name, t in trained.items()}
    measured = measure(
        {name: t.classifier for name, t in trained.items()},
        Bench(test, store, request.seed, request.device),
        center,
        distances=scale.distances,
        suite=scale.suite,
    )
    results = _results(measured, test)
    results["network"] = network
    results["search"] = tried
    results["settings"] = {name: recipes.plain(recipe.method(name, changes.get(name))) for name in names}
    results["published"] = _published(train.name, network)
    return Findings(
        test, results, claims.judge(results, measured), _arrays(measured), _left_out(request, scale, train), seconds
    )


@dataclass(frozen=True)
class _Room:
    """Trains networks of one architecture in their folders."""

    request: Request
    network: str
    folder: Path

    def train(
        self, name: str, way: Way, data: Dataset, start: Classifier | None = None, under: str = "models"
    ) -> Trained:
        """Train from random weights, or from those of `start`."""
        if start is None:
            mean, std = _moments(data)
            start = models.build(
                self.network,
                data.shape,
                data.classes,
                seed=self.request.seed,
                mean=mean,
                std=std,
            )
        return learn(
            Lesson(name, start, way.defense, way.training),
            data,
            None,
            self.folder / under / name,
            seed=self.request.seed,
            device=self.request.device,
        )


def _moments(data: Dataset) -> tuple[list[float], list[float]]:
    x, _ = data.take(10_000, seed=0).tensors()
    rows = x.transpose(0, 1).flatten(1)
    return rows.mean(1).tolist(), rows.std(1).clamp_min(1e-3).tolist()


def _searched(
    room: _Room, recipe: Recipe, train: Dataset, scale: Scale, store: Store, center: torch.Tensor
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], dict[str, float]]:
    """The choice on a part of the training data that the trainings of the search do not see."""
    fitted, validation = train.divide(_HELD_OUT, room.request.seed)
    validation = validation.take(scale.validation)
    bench = Bench(validation, store, room.request.seed, room.request.device)

    def scores(model: Classifier) -> tuple[float, float]:
        ratio = bench.changes(model) / bench.norms(center)
        return float(bench.right(model).mean()), float(ratio.mean())

    recipe = recipe.shortened(_SEARCH_PART)

    def candidate(name: str, way: Way, start: Classifier) -> Trained:
        return room.train(name, way, fitted, start, "search")

    names = recipe.methods(room.request.combined)
    return searched(recipe, names, candidate, scores, room.train("reference", recipe.reference, fitted, under="search"))


def _results(found: Measured, test: Dataset) -> dict[str, Any]:
    rows = {}
    for name in found.right:
        reached = found.distances[name][found.right[name][: len(found.distances[name])]]
        rows[name] = {
            "accuracy": share_of(found.right[name]).plain(),
            "rho2": mean(found.changes[name] / np.maximum(found.norms, 1e-12)).plain(),
            "rho2_centered": mean(found.changes[name] / np.maximum(found.centered_norms, 1e-12)).plain(),
            "rounded": share_of(found.rounded[name]).plain(),
            "fgs": {f"{m:g}": share_of(row).plain() for m, row in zip(MULTIPLES, found.fgs[name])},
            "ddn": {"quantiles": quantiles(reached), "count": len(reached)},
            "suite": share_of(found.withstands[name]).plain(),
        }
    return {
        "models": list(rows),
        "rows": rows,
        "eps_ref": found.radius,
        "halved": found.halved,
        "suite_eps": found.suite_radius,
        "images": {
            "accuracy, rho2, FGS": len(test),
            "DDN": len(found.distances["reference"]),
            "suite": len(found.withstands["reference"]),
        },
    }


def _arrays(found: Measured) -> Arrays:
    out: Arrays = {}
    for name in found.right:
        out[f"{name}/changes"] = found.changes[name].astype(np.float32)
        out[f"{name}/distances"] = found.distances[name].astype(np.float32)
        out[f"{name}/right"] = found.right[name]
    return out


def _published(data: str, network: str) -> dict[str, Any]:
    """The paper's rows by our names of the methods; its adversarial training is compared with FGS."""
    names = {"adversarial_training": "adversarial_fgs"}
    out = {}
    for row in published.rows("yan2018_table1"):
        if (row["dataset"], row["network"]) != (data, network):
            continue
        values = {k: float(v) for k, v in row.items() if k not in ("dataset", "network", "method") and v}
        out[names.get(row["method"], row["method"])] = {
            "accuracy": values["accuracy_pct"] / 100,
            "rho2": values["rho2"],
            "fgs": {m: values[f"acc_at_{m}_eps_ref_pct"] / 100 for m in ("0.2", "0.5", "1.0")},
        }
    return out


def _left_out(request: Request, scale: Scale, train: Dataset) -> list[str]:
    lines = [
        "One seed: the intervals say nothing about another training.",
        "FGS stays within the range of the pixels, which the paper does not ask for; DeepFool for ρ₂ does not.",
        "All methods fine-tune the same reference; the paper publishes settings for LeNet's Deep Defense only.",
    ]
    if train.name == "cifar10":
        lines.append(
            "CIFAR-10 in pixels of [0, 1], normalized per channel; the paper whitens, so its rows compare as "
            "ratios to the "
            "reference."
        )
    if scale.part < 1:
        lines.append(f"Trainings have {scale.part:g} of their epochs (at least one).")
    if scale.training is not None or scale.test is not None:
        lines.append(f"{len(train):,} training samples and the first {scale.test} test samples.")
    lines.append(
        "The settings were chosen in this run, on a twelfth of the training data that the search did not train on."
        if request.search
        else "The settings are those of the network's table; --search chooses them anew on validation data."
    )
    return lines


YAN2018 = Paper(
    name="yan2018",
    title="Deep Defense",
    reference="Yan, Guo and Zhang, NeurIPS 2018, arXiv 1803.00404",
    says=(
        "Fine-tuning with a penalty on small DeepFool perturbations, differentiated through all of DeepFool's "
        "steps, makes "
        "networks harder to fool and no less accurate."
    ),
    data=("mnist", "cifar10"),
    models=("mlp", "lenet", "convnet", "nin", "alexnet", "resnet18"),
    plan=plan,
    run=run,
    sections=pages.sections,
)
