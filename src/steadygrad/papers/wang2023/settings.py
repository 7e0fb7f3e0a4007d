"""The network, the models that are compared, the radii, and what each scale trains and measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from steadygrad.attacks import IFIA, PGD, AttributionNoise, AttributionPGD
from steadygrad.attacks.maps.attribution_attacks import ExplanationAttack
from steadygrad.attributions import Attribution, IntegratedGradients, Saliency
from steadygrad.classifier import Classifier
from steadygrad.defenses import (
    TRADES,
    AdversarialTraining,
    AttributionCosine,
    Defense,
    IGNorm,
    InputGradientPenalty,
    Plain,
)
from steadygrad.models.architectures import seeded
from steadygrad.threat import Threat, l2, linf
from steadygrad.training import FitSettings

__all__ = ["ATTACKS", "BETA", "LABELS", "MAPS", "SCALES", "Scale", "attacks", "defenses", "network", "threats"]

BETA = 10.0
"""Of the softplus with which the networks are trained and measured: they are smooth as they are."""

LABELS = {
    "plain": "plain",
    "pgd": "PGD-trained",
    "gradient": "gradient penalty",
    "cosine": "cosine of maps + PGD",
    "trades": "TRADES",
    "ig_norm": "IG-NORM",
    "ig_sum_norm": "IG-SUM-NORM",
}

MAPS: dict[str, Attribution] = {"saliency": Saliency(), "integrated gradients": IntegratedGradients(steps=4)}

ATTACKS = ("random noise", "IFIA, top k", "IFIA, mass center", "PGD, Euclidean", "PGD, cosine")


def network(shape: Sequence[int], classes: Sequence[str], seed: int) -> Classifier:
    """Two strided convolutions and a linear layer, softplus between them; nothing is cut by a maximum."""
    height, width = (s // 4 for s in shape[1:])
    with seeded(seed):
        module = nn.Sequential(
            *(nn.Conv2d(shape[0], 8, 4, stride=2, padding=1), nn.Softplus(BETA)),
            *(nn.Conv2d(8, 16, 4, stride=2, padding=1), nn.Softplus(BETA)),
            *(nn.Flatten(), nn.Linear(16 * height * width, len(classes))),
        )
    return Classifier(module, classes=classes, input_shape=shape, name="strided CNN")


@dataclass(frozen=True)
class Scale:
    """How much is trained and measured.

    Args:
        fit: settings of all trainings.
        training: largest number of training samples; None for all.
        more: TRADES, IG-NORM and IG-SUM-NORM too.
        radii: of each norm, the smallest first.
        images: first test images whose maps are attacked, by attribution.
        steps, restarts: of each attack; 1 + steps points a restart.
        draws: random points.
    """

    fit: FitSettings
    training: int | None
    more: bool
    radii: int
    images: dict[str, int]
    steps: int
    restarts: int
    draws: int

    @property
    def points(self) -> int:
        """Points that are tried for one image, model, attribution and threat."""
        return (len(ATTACKS) - 1) * self.restarts * (self.steps + 1) + self.draws


SCALES = {
    "smoke": Scale(
        FitSettings(epochs=2, batch_size=64, lr=3e-3),
        600, False, 1, {"saliency": 3, "integrated gradients": 1}, 5, 1, 10,
    ),
    "short": Scale(
        FitSettings(epochs=2, batch_size=64, lr=2e-3, schedule="linear"),
        20_000, False, 2, {"saliency": 50, "integrated gradients": 4}, 40, 7, 202,
    ),
    "paper": Scale(
        FitSettings(epochs=20, batch_size=128, lr=2e-3, schedule="linear"),
        None, True, 2, {"saliency": 300, "integrated gradients": 30}, 40, 7, 202,
    ),
}  # fmt: skip


def radius(data: str) -> float:
    """The linf radius of the trainings, in units of the inputs."""
    return 8 / 255 if data in ("cifar10", "svhn") else 0.1


def defenses(data: str, scale: Scale) -> dict[str, Defense]:
    """The training objectives.

    >>> list(defenses("mnist", SCALES["short"]))
    ['plain', 'pgd', 'gradient', 'cosine']
    """
    eps = radius(data)
    adversarial = AdversarialTraining(eps=eps, attack=PGD(steps=5, loss="ce"))
    steady = AttributionCosine(weight=1.0, eps=eps, attribution=Saliency(), attack=PGD(steps=5, loss="ce"))
    out: dict[str, Defense] = {
        "plain": Plain(),
        "pgd": adversarial,
        "gradient": InputGradientPenalty(1.0),
        "cosine": adversarial + steady,
    }
    if scale.more:
        out["trades"] = TRADES(eps=eps)
        out["ig_norm"] = IGNorm(weight=1.0, eps=eps)
        out["ig_sum_norm"] = IGNorm(weight=0.1, eps=eps, kind="sum-norm")
    return out


def threats(data: str, scale: Scale) -> tuple[Threat, ...]:
    """Radii of each norm: one at which the tangent describes the map, and one nearer to those of the literature."""
    far = radius(data) == 0.1
    boxes, balls = ((0.01, 0.1), (0.01, 1.0)) if far else ((1 / 255, 8 / 255), (0.01, 0.5))
    return (*(linf(eps) for eps in boxes[: scale.radii]), *(l2(eps) for eps in balls[: scale.radii]))


def attacks(attribution: Attribution, scale: Scale) -> dict[str, ExplanationAttack]:
    """All attacks on an attribution, the random points first."""
    common = {"attribution": attribution, "steps": scale.steps, "restarts": scale.restarts, "noise_draws": 0}
    made = (
        AttributionNoise(attribution, "euclidean", scale.draws),
        IFIA(goal="top-k", **common),  # type: ignore[arg-type]
        IFIA(goal="mass-center", **common),  # type: ignore[arg-type]
        AttributionPGD(distance="euclidean", **common),  # type: ignore[arg-type]
        AttributionPGD(distance="cosine", **common),  # type: ignore[arg-type]
    )
    return dict(zip(ATTACKS, made, strict=True))
