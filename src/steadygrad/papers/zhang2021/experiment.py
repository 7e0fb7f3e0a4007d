"""The experiment: seven models of one architecture, their neurons under attack, and what attacks leave of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steadygrad import models, neurons
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.measuring.statistics import mean, share_of, wilson
from steadygrad.papers.base import Findings, Paper, Request
from steadygrad.papers.lessons import Lesson, learn
from steadygrad.papers.store import Array, Arrays, Store
from steadygrad.papers.zhang2021 import claims, pages
from steadygrad.papers.zhang2021.measures import WAYS, Measured, NeuronBench
from steadygrad.papers.zhang2021.settings import SCALES, SHARE, Scale, defenses, eps_of, fitting
from steadygrad.registry import describe
from steadygrad.training import FitSettings

__all__ = ["ZHANG2021"]

_HELD_OUT = 1 / 12
_LEFT = 0.3
_SHOWN = 6
_CHOICES = ("most", "random", "least")


def plan(request: Request, train: Dataset, test: Dataset) -> dict[str, Any]:
    """All that the numbers depend on besides data, scale and seed."""
    if request.search:
        raise UsageError("zhang2021 has nothing to search: leave --search out")
    scale = SCALES[request.scale]
    eps = eps_of(train.name)
    return {
        "network": ZHANG2021.model_of(request),
        "eps": eps,
        "defenses": {name: describe(d) for name, d in defenses(eps, scale.steps).items()},
        "training": fitting(scale, len(_parts(request, train, scale)[0])).outcome,
        "measured": dataclasses.asdict(scale),
    }


def run(request: Request, train: Dataset, test: Dataset, folder: Path, store: Store) -> Findings:
    """Train all models, look at their neurons and attack them."""
    scale, network, eps = SCALES[request.scale], ZHANG2021.model_of(request), eps_of(train.name)
    fitted, held = _parts(request, train, scale)
    settings = fitting(scale, len(fitted))
    start = models.build(network, train.shape, train.classes, seed=request.seed)
    trained = {
        name: learn(
            Lesson(name, start, defense, settings), fitted, None, folder / "models" / name,
            seed=request.seed, device=request.device,
        )
        for name, defense in defenses(eps, scale.steps).items()
    }  # fmt: skip
    named = {name: t.classifier for name, t in trained.items()}
    benches = [NeuronBench(data, store, request.seed, request.device) for data in (held, test)]
    measured = measure(named, benches[0], benches[1], eps, scale, request.seed)
    seconds = {f"train {name}": t.seconds for name, t in trained.items()}
    results = {"network": network, **_results(measured, scale, len(test))}
    arrays = _arrays(measured)
    if len(train.shape) == 3:
        arrays |= _pictures(named, benches[0], measured.own, scale)
    return Findings(test, results, claims.judge(results, measured), arrays, _left_out(settings, fitted, eps), seconds)


def _parts(request: Request, train: Dataset, scale: Scale) -> tuple[Dataset, Dataset]:
    """What is trained on, and the held-out images on which everything is chosen."""
    train = train if scale.samples is None else train.take(scale.samples, seed=request.seed)
    return train.divide(_HELD_OUT, request.seed)


def measure(
    named: dict[str, Classifier], held: NeuronBench, test: NeuronBench, eps: float, scale: Scale, seed: int
) -> Measured:
    """Choose neurons, layers and the radii on held-out images; measure on test images."""
    own = {name: held.radius(model, _LEFT, scale.looked) for name, model in named.items()}
    layers: list[str] = []
    chosen: dict[str, str] = {}
    restored: dict[str, dict[str, Arrays]] = {}
    for name, model in named.items():
        looked = held.moved(model, own[name], scale.looked)
        layers = [layer.removesuffix("/sigma") for layer in looked if layer.endswith("/sigma")]
        sets = {layer: _sets(layer, looked[f"{layer}/sigma"], scale.draws, seed) for layer in layers}
        most = {layer: {"most": sets[layer]["most"]} for layer in layers}
        tried = {layer: held.restored(model, own[name], scale.looked, most[layer], layer) for layer in layers}
        chosen[name] = max(layers, key=lambda layer: tried[layer]["patched/most"].sum())
        restored[name] = {layer: test.restored(model, own[name], scale.images, sets[layer], layer) for layer in layers}
    return Measured(
        eps, own, layers,
        right={name: test.right(model) for name, model in named.items()},
        moved={name: test.moved(model, eps, scale.curves) for name, model in named.items()},
        chosen=chosen,
        restored=restored,
        kept={name: test.withstands(model, own["plain"], scale.suite) for name, model in named.items()},
        kept_trained={name: test.withstands(model, eps, scale.suite) for name, model in named.items()},
    )  # fmt: skip


def _sets(layer: str, sigma: Array, draws: int, seed: int) -> dict[str, list[Array]]:
    """Indices (k,) of the most and least sensitive neurons of a layer, and of random ones, `draws` times."""
    values = {layer: torch.from_numpy(sigma)}
    return {
        "most": [neurons.select(values, SHARE, "most")[layer].numpy()],
        "least": [neurons.select(values, SHARE, "least")[layer].numpy()],
        "random": [neurons.select(values, SHARE, "random", seed=seed + d)[layer].numpy() for d in range(draws)],
    }


def _results(found: Measured, scale: Scale, count: int) -> dict[str, Any]:
    rows = {}
    for name in found.right:
        moved, restored = found.moved[name], found.restored[name]
        pairs = min(scale.images, count)
        rows[name] = {
            "accuracy": share_of(found.right[name]).plain(),
            "own": found.own[name],
            "fooled": wilson(len(restored[found.chosen[name]]["patched/most"]), pairs).plain(),
            "suite": share_of(found.kept[name]).plain(),
            "suite_trained": share_of(found.kept_trained[name]).plain(),
            "change": {layer: mean(moved[f"{layer}/change"]).plain() for layer in found.layers},
            "relative": {
                layer: float(moved[f"{layer}/change"].mean() / max(moved[f"{layer}/size"].mean(), 1e-12))
                for layer in found.layers
            },
            "best": found.chosen[name],
            "restored": {
                layer: {key: mean(values).plain() if len(values) else None for key, values in restored[layer].items()}
                for layer in found.layers
            },
        }
    return {
        "models": list(rows),
        "rows": rows,
        "layers": found.layers,
        "neurons": {layer: len(found.moved["plain"][f"{layer}/sigma"]) for layer in found.layers},
        "eps": found.eps,
        "radius": found.own["plain"],
        "share": SHARE,
        "ways": list(WAYS),
        "choices": list(_CHOICES),
        "images": {
            "accuracy": count,
            "pairs": min(scale.images, count),
            "curves": len(found.moved["plain"]["fooled"]),
            "suite": len(found.kept["plain"]),
        },
    }


def _arrays(found: Measured) -> Arrays:
    spectra = {
        f"{name}/{layer}/sigma": moved[f"{layer}/sigma"]
        for name, moved in found.moved.items()
        for layer in found.layers
    }
    return spectra | {f"{name}/right": right for name, right in found.right.items()}


def _pictures(named: dict[str, Classifier], held: NeuronBench, own: dict[str, float], scale: Scale) -> Arrays:
    """What moves the most sensitive neuron of the last layer of maps, model by model."""
    out: Arrays = {}
    for name, model in named.items():
        moved = held.moved(model, own[name], scale.looked)
        layer = _last_maps(model, held)
        neuron = int(np.argmax(moved[f"{layer}/sigma"]))
        found = held.movers(model, own[name], scale.looked, layer, neuron, _SHOWN)
        out |= {f"{name}/movers/{key}": values for key, values in found.items()}
    return out


def _last_maps(model: Classifier, bench: NeuronBench) -> str:
    x, _ = bench.data.batch(slice(0, 1))
    with neurons.recorded(model) as outputs, torch.no_grad():
        model(x.to(bench.device))
    return [layer for layer, values in outputs.items() if values.ndim == 4 or layer == next(iter(outputs))][-1]


def _left_out(settings: FitSettings, fitted: Dataset, eps: float) -> list[str]:
    return [
        "The paper's tables are not available to us: its three claims are what is tested, not its figures.",
        f"All models: {settings.epochs} epochs of {len(fitted):,} samples with Adam at {settings.lr:g}; equally many "
        "steps, but not equally many passes.",
        f"One radius, linf {eps:.3g}, for all defenses and the layer curves; for patching each model's own, which "
        f"leaves it about {100 * _LEFT:g} %. The weights of SNS are 1 and were not searched.",
        "Activations are not scaled: their size differs between models, so the change stands beside its ratio to it.",
        "One seed: the intervals say nothing about another training.",
    ]


ZHANG2021 = Paper(
    name="zhang2021",
    title="Neuron sensitivity",
    reference="Zhang et al., IEEE TIP 30, 2021, arXiv 1909.06978",
    says=(
        "The neurons that move most from a benign to an adversarial input carry the wrong prediction; adversarial "
        "training calms them, and training that holds them still makes networks harder to fool."
    ),
    data=("cifar10", "mnist"),
    models=("ross_cnn", "convnet", "vgg16", "resnet18"),
    plan=plan,
    run=run,
    sections=pages.sections,
)
