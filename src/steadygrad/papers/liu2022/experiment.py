"""The experiment: nine models of one architecture, attacked from another one and directly, and their maps judged."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from steadygrad import models
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.measuring.statistics import mean, share_of
from steadygrad.papers.base import Findings, Paper, Request
from steadygrad.papers.lessons import Lesson, Trained, learn
from steadygrad.papers.liu2022 import claims, pages
from steadygrad.papers.liu2022.measures import JUDGED, MapBench, Measured
from steadygrad.papers.liu2022.search import Search, searched
from steadygrad.papers.liu2022.settings import (
    JACOBIANS,
    PENALTIES,
    RIVALS,
    SCALES,
    SELECTIVES,
    TRANSFERRED,
    Scale,
    Weights,
    defenses,
    eps_of,
    fitting,
    source_of,
)
from steadygrad.papers.store import Store
from steadygrad.registry import describe

__all__ = ["LIU2022"]

_HELD_OUT = 1 / 12
_SHOWN = 6


def plan(request: Request, train: Dataset, test: Dataset) -> dict[str, Any]:
    """All that the numbers depend on besides data, scale and seed."""
    if len(train.shape) != 3:
        raise UsageError(f"liu2022 needs images (C, H, W), and {train.name} has samples of shape {train.shape}")
    scale, network = SCALES[request.scale], LIU2022.model_of(request)
    eps = eps_of(train.name)
    return {
        "network": network,
        "source": source_of(network, train.shape),
        "eps": eps,
        "defenses": {name: describe(d) for name, d in defenses(eps, scale).items()},
        "searched": [list(PENALTIES), list(JACOBIANS), list(SELECTIVES)] if request.search else [],
        "measured": {**dataclasses.asdict(scale), "training": fitting(scale, network).outcome},
    }


def run(request: Request, train: Dataset, test: Dataset, folder: Path, store: Store) -> Findings:
    """Train the source and all models, attack them and judge their maps."""
    scale, eps = SCALES[request.scale], eps_of(train.name)
    fitted, held = train.divide(_HELD_OUT, request.seed)
    fitted = fitted if scale.samples is None else fitted.take(scale.samples, seed=request.seed)
    network = LIU2022.model_of(request)
    room = _Room(request, folder, fitted, scale, network)
    # Another seed too, or the source would see the same batches as the models.
    source = room.train("source", defenses(eps, scale)["plain"], source_of(network, train.shape), seed=request.seed + 1)
    bench = MapBench(test, store, request.seed, request.device)
    found = Search()
    if request.search:
        judge = MapBench(held.take(scale.held), store, request.seed, request.device)
        found = _searched(room, judge, source.classifier, eps)
    trained = {name: room.train(name, defense) for name, defense in defenses(eps, scale, found.chosen).items()}
    named = {name: t.classifier for name, t in trained.items()}
    measured = measure(named, source.classifier, bench, eps, scale)
    seconds = {f"train {name}": spent for name, spent in room.seconds.items()}
    results = _results(measured, scale, len(test))
    results |= {
        "network": network,
        "search": found.rows,
        "chosen": {name: weights.of(name) for name, weights in found.chosen.items()},
        "defenses": {name: describe(d) for name, d in defenses(eps, scale, found.chosen).items()},
    }
    arrays = {
        f"{name}/{what}": values
        for name, model in named.items()
        for what, values in bench.pictures(model, _SHOWN).items()
    } | {"images": test.batch(slice(0, _SHOWN))[0].numpy()}
    left_out = _left_out(request, scale, fitted, eps)
    return Findings(test, results, claims.judge(measured), arrays, left_out, seconds)


@dataclass(frozen=True)
class _Room:
    """Trains networks in their folders."""

    request: Request
    folder: Path
    data: Dataset
    scale: Scale
    network: str
    seconds: dict[str, float] = field(default_factory=dict)

    def train(
        self, name: str, defense: Any, network: str | None = None, seed: int | None = None, under: str = ""
    ) -> Trained:
        seed, network = self.request.seed if seed is None else seed, network or self.network
        start = models.build(network, self.data.shape, self.data.classes, seed=seed)
        lesson = Lesson(name, start, defense, fitting(self.scale, network))
        folder = self.folder / "models" / (under or name)
        trained = learn(lesson, self.data, None, folder, seed=seed, device=self.request.device)
        self.seconds[under or name] = trained.seconds
        return trained

    def adopt(self, name: str, under: str) -> None:
        """Take a network that was trained under another folder as the one of that name."""
        whole, part = self.folder / "models" / name, self.folder / "models" / f".{name}.part"
        if not whole.exists():
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(self.folder / "models" / under, part)
            part.rename(whole)
        self.seconds.pop(under, None)  # counted as the model's


def _searched(room: _Room, bench: MapBench, source: Classifier, eps: float) -> Search:
    """The weights of the penalties, and their networks in the places of the models."""

    def folder(name: str, weights: Weights) -> str:
        return "/".join(("search", " ".join((name, *(f"{value:.3g}" for value in weights.of(name).values())))))

    def train(name: str, weights: Weights) -> Classifier:
        defense = defenses(eps, room.scale, {name: weights})[name]
        return room.train(name, defense, under=folder(name, weights)).classifier

    def scores(model: Classifier) -> tuple[float, float]:
        attacked = [bench.transferred(source, model, a, eps, len(bench.data)).mean() for a in TRANSFERRED.values()]
        return float(bench.right(model).mean()), float(np.mean(attacked))

    plain = room.train("plain", defenses(eps, room.scale)["plain"]).classifier
    found = searched(train, scores, scores(plain)[0], eps)
    for name in ("penalty", "jacobian", "jsigr"):
        room.adopt(name, folder(name, found.chosen[name]))
    return found


def measure(named: dict[str, Classifier], source: Classifier, bench: MapBench, eps: float, scale: Scale) -> Measured:
    """Measure all models on test images."""
    return Measured(
        eps, str((source.architecture or {}).get("name", source.name)),
        right={name: bench.right(model) for name, model in named.items()},
        transferred={
            title: {name: bench.transferred(source, m, attack, eps, scale.transfer) for name, m in named.items()}
            for title, attack in TRANSFERRED.items()
        },
        kept={name: bench.withstands(model, eps, scale.suite) for name, model in named.items()},
        verdicts={name: bench.verdict(model, eps, scale.checked) for name, model in named.items()},
        maps={name: bench.faithful(model, scale.maps) for name, model in named.items()},
    )  # fmt: skip


def _results(found: Measured, scale: Scale, count: int) -> dict[str, Any]:
    rows = {
        name: {
            "accuracy": share_of(found.right[name]).plain(),
            "transferred": {attack: share_of(right[name]).plain() for attack, right in found.transferred.items()},
            "suite": share_of(found.kept[name]).plain(),
            "trustworthy": found.verdicts[name][0],
            "verdict": found.verdicts[name][1],
            "maps": {measure: mean(found.maps[name][measure]).plain() for measure in JUDGED},
        }
        for name in found.right
    }
    return {
        "models": list(rows),
        "rivals": list(RIVALS),
        "rows": rows,
        "eps": found.eps,
        "source": found.source,
        "images": {
            "accuracy": count,
            "transferred": len(found.transferred["FGSM"]["plain"]),
            "suite": len(found.kept["plain"]),
            "checked": min(count, scale.checked),
            "maps": len(found.maps["plain"]["gini"]),
        },
    }


def _left_out(request: Request, scale: Scale, fitted: Dataset, eps: float) -> list[str]:
    settings = scale.training
    return [
        "The authors publish no code of J-SIGR: its loss is written after the abstract and its ancestors.",
        f"All models: {settings.epochs} epochs of {len(fitted):,} samples with Adam at {settings.lr:g}; equally many "
        "steps, but not equally many passes.",
        f"One radius, linf {eps:.3g}, for adversarial training and all attacks.",
        "The weights of the penalties were chosen in this run, on held-out training images."
        if request.search
        else "The weights of the penalties are starting values and were not chosen for this data: --search does that.",
        "One seed: the intervals say nothing about another training.",
    ]


LIU2022 = Paper(
    name="liu2022",
    title="J-SIGR",
    reference="Liu et al., Pattern Recognition 145, 2024, arXiv 2207.13036",
    says=(
        "A small Jacobian makes networks harder to fool; small gradients outside of the pixels that a perturbation "
        "saliency calls salient make the cheap gradient map as readable as the costly one."
    ),
    data=("mnist", "cifar10"),
    models=("ross_cnn", "lenet", "convnet", "resnet18"),
    plan=plan,
    run=run,
    sections=pages.sections,
)
