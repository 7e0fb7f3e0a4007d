"""Wang and Kong 2023: the network and its trainings, and the bounds and attacks on its maps, at each scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from steadygrad.attacks import IFIA, PGD, AttributionNoise, AttributionPGD, ExplanationAttack
from steadygrad.attributions import Attribution, IntegratedGradients, Saliency
from steadygrad.bounds import Bound, CertifiedDeviation, LinearizedDeviation
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.defenses import (
    TRADES,
    AdversarialTraining,
    AttributionCosine,
    Defense,
    IGNorm,
    InputGradientPenalty,
    Plain,
)
from steadygrad.measuring.measures.map_bounds import DISTANCES, BoundedMaps, certified_cosine
from steadygrad.measuring.measures.map_points import MapPoints
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.table import Array, Table
from steadygrad.models.architectures import seeded
from steadygrad.papers.study import Study, settings_of
from steadygrad.papers.training import Training
from steadygrad.registry import describe
from steadygrad.threat import Threat, l2, linf
from steadygrad.training import FitSettings

SETTINGS = settings_of("wang2023")
LABELS: dict[str, str] = SETTINGS["labels"]
SCALES: dict[str, Any] = SETTINGS["scales"]
MAPS: dict[str, Attribution] = {"saliency": Saliency(), "integrated gradients": IntegratedGradients(steps=4)}
ATTACKS = ("random noise", "IFIA, top k", "IFIA, mass center", "PGD, Euclidean", "PGD, cosine")

EXACT = 1024
"""Entries of an input, up to which a certified bound takes the exact Jacobian."""

_BETA = 10.0  # of the softplus with which the networks are trained and measured: they are smooth as they are
_PICTURED = 5


Scale = Mapping[str, Any]
"""How much is trained and measured, as the settings explain."""


def points_of(scale: Scale) -> int:
    """Points that are tried for one image, model, attribution and threat."""
    return int((len(ATTACKS) - 1) * scale["restarts"] * (scale["steps"] + 1) + scale["draws"])


def network(data: Dataset, seed: int) -> Classifier:
    """Two strided convolutions and a linear layer, softplus between them; nothing is cut by a maximum."""
    height, width = (s // 4 for s in data.shape[1:])
    with seeded(seed):
        module = nn.Sequential(
            *(nn.Conv2d(data.shape[0], 8, 4, stride=2, padding=1), nn.Softplus(_BETA)),
            *(nn.Conv2d(8, 16, 4, stride=2, padding=1), nn.Softplus(_BETA)),
            *(nn.Flatten(), nn.Linear(16 * height * width, len(data.classes))),
        )
    return Classifier(module, classes=data.classes, input_shape=data.shape)


def radius(data: str) -> float:
    """The linf radius of the trainings, in units of the inputs."""
    return 8 / 255 if data in ("cifar10", "svhn") else 0.1


def trainings(data: str, scale: Scale) -> dict[str, Training]:
    """How each network is trained.

    >>> list(trainings("mnist", SCALES["short"]))
    ['plain', 'pgd', 'gradient', 'cosine']
    """
    eps, pgd = radius(data), PGD(steps=5, loss="ce")
    adversarial = AdversarialTraining(eps=eps, attack=pgd)
    ways: dict[str, Defense] = {
        "plain": Plain(),
        "pgd": adversarial,
        "gradient": InputGradientPenalty(1.0),
        "cosine": adversarial + AttributionCosine(weight=1.0, eps=eps, attribution=Saliency(), attack=pgd),
    }
    if scale["more"]:
        ways["trades"] = TRADES(eps=eps)
        ways["ig_norm"] = IGNorm(weight=1.0, eps=eps)
        ways["ig_sum_norm"] = IGNorm(weight=0.1, eps=eps, kind="sum-norm")
    settings = FitSettings(**scale["training"])
    return {name: Training(defense, settings, network) for name, defense in ways.items()}


def threats(data: str, scale: Scale) -> tuple[Threat, ...]:
    """Radii of each norm: one at which the tangent describes the map, and one nearer to those of the literature."""
    far = radius(data) == 0.1
    boxes, balls = ((0.01, 0.1), (0.01, 1.0)) if far else ((1 / 255, 8 / 255), (0.01, 0.5))
    return (*(linf(eps) for eps in boxes[: scale["radii"]]), *(l2(eps) for eps in balls[: scale["radii"]]))


def attacks(attribution: Attribution, scale: Scale) -> tuple[ExplanationAttack, ...]:
    """The `ATTACKS` on an attribution."""
    common: dict[str, Any] = {"steps": scale["steps"], "restarts": scale["restarts"], "noise_draws": 0}
    return (
        AttributionNoise(attribution, "euclidean", scale["draws"]),
        IFIA(attribution, goal="top-k", **common),
        IFIA(attribution, goal="mass-center", **common),
        AttributionPGD(attribution, distance="euclidean", **common),
        AttributionPGD(attribution, distance="cosine", **common),
    )


def samples(study: Study, whole: Dataset, test: Dataset) -> dict[str, Dataset]:
    """What is trained on and measured."""
    scale = SCALES[study["scale"]]
    return {"train": whole.take(scale["samples"], seed=study.seed) if "samples" in scale else whole, "test": test}


def plan(study: Study) -> dict[str, Any]:
    """All that the numbers depend on besides data, scale and seed."""
    scale, data = SCALES[study["scale"]], study["dataset"]
    return {
        "softplus": _BETA,
        "trainings": {name: way.plain() for name, way in trainings(data, scale).items()},
        "images": scale["images"],
        "threats": [str(threat) for threat in threats(data, scale)],
        "attacks": {
            name: dict(zip(ATTACKS, map(describe, attacks(method, scale)), strict=True))
            for name, method in MAPS.items()
        },
    }


@dataclass(frozen=True)
class Attacked:
    """One model, one attribution and one threat: what N images have.

    Attributes:
        length, tangent: (N,) of the maps, and how far they can move to first order.
        bounds: (N,) by distance and kind.
        points: the table of the attacks.
    """

    model: str
    map: str
    threat: Threat
    length: Array
    tangent: Array
    bounds: Mapping[tuple[str, str], Array]
    points: Table

    @property
    def strongest(self) -> Array:
        """The largest Euclidean deviation (N,) that any attack found, random points included."""
        best: Array = self.points["deviation_euclidean"].max(1)
        return best

    def bound(self, kind: str) -> Array:
        """The bound (N,) on the Euclidean deviation."""
        return self.bounds["euclidean", kind]


def measure(study: Study) -> tuple[dict[str, Array], list[Attacked]]:
    """Train the networks, bound and attack their maps: which test images each gets right, and what was found."""
    scale, data = SCALES[study["scale"]], study["dataset"]
    ways = trainings(data, scale)
    study.fit_all(ways)
    right = study.each(Predicted(), ways, "right")
    found = [_attacked(study, n, m, threat) for m in MAPS for threat in threats(data, scale) for n in ways]
    return right, found


def _attacked(study: Study, model: str, name: str, threat: Threat) -> Attacked:
    """Bound the maps of the first test images, and attack them."""
    scale = SCALES[study["scale"]]
    method, rows, about = MAPS[name], study.first(scale["images"][name]), f"{name}, {threat}"

    def bounded(bound: Bound, title: str) -> Table:
        return study.table(BoundedMaps(bound, threat), model, rows=rows, title=f"{title} bound on {about}")

    first_order = {d: bounded(LinearizedDeviation(method, d), f"linearized {d}") for d in DISTANCES}
    # What is reached is left to the attacks. Intervals are narrowed by the exact derivatives, which makes linear bounds
    # of every unit superfluous where these are affordable.
    units = 0 if math.prod(study["shape"]) <= EXACT else 2048
    proof = bounded(CertifiedDeviation(method, exact=EXACT, restarts=4, steps=0, units=units), "certified")
    turned = certified_cosine(torch.from_numpy(proof["length"]), torch.from_numpy(proof["upper"])).numpy()
    bounds: dict[tuple[str, str], Array] = {(d, "linearized"): table["upper"] for d, table in first_order.items()}
    bounds |= {("euclidean", "certified"): proof["upper"], ("cosine", "certified"): turned}
    points = study.table(
        MapPoints(attacks(method, scale), threat),
        model,
        rows=rows,
        title=f"points of attacks on {about}",
        given={f"deviation_{d}_{kind}": values for (d, kind), values in bounds.items()},
        keep=rows[:_PICTURED],
    )
    return Attacked(model, name, threat, proof["length"], first_order["euclidean"]["lower"], bounds, points)
