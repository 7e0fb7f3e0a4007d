"""The models, the radius of each data set, and what each scale trains and measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from steadygrad.attacks import FGSM, MIFGSM, PGD, Attack
from steadygrad.attributions import BlurSaliency
from steadygrad.defenses import (
    AdversarialTraining,
    Defense,
    Distillation,
    InputGradientPenalty,
    JacobianPenalty,
    Plain,
    SelectiveGradientPenalty,
)
from steadygrad.errors import UsageError
from steadygrad.models import ARCHITECTURES
from steadygrad.training import FitSettings

__all__ = [
    "JACOBIANS",
    "LABELS",
    "PENALTIES",
    "RIVALS",
    "SCALES",
    "SELECTIVES",
    "TRANSFERRED",
    "Scale",
    "Weights",
    "defenses",
    "eps_of",
    "fitting",
    "source_of",
]

LABELS = {
    "plain": "plain",
    "nat": "FGSM-trained",
    "pat": "PGD-trained",
    "distilled": "distilled",
    "penalty": "input gradient penalty",
    "jacobian": "Jacobian only",
    "selective": "selective only",
    "jsigr": "J-SIGR",
    "jsigr_pat": "J-SIGR + PGD",
}
RIVALS = ("plain", "nat", "distilled", "penalty")
"""What J-SIGR is to beat."""
TRANSFERRED: dict[str, Attack] = {
    "FGSM": FGSM(loss="ce"),
    "PGD": PGD(steps=20, loss="ce"),
    "MI-FGSM": MIFGSM(loss="ce"),
}
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
JACOBIANS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SELECTIVES = (0.3, 3.0, 30.0, 300.0)
"""The weights that a search climbs, at a radius of .2."""

_RADII = {"mnist": 0.2, "digits": 0.15, "cifar10": 8 / 255}


def eps_of(data: str) -> float:
    """The radius (linf) of all attacks and of adversarial training, by data set."""
    return _RADII.get(data, 8 / 255)


def source_of(network: str, shape: tuple[int, ...]) -> str:
    """The architecture that transferred attacks come from: another one, which takes these inputs.

    >>> source_of("ross_cnn", (1, 8, 8))
    'mlp'
    """
    for name in ("convnet", "lenet", "mlp"):
        try:
            ARCHITECTURES[name].check(shape)
        except UsageError:
            continue
        if name != network:
            return name
    raise UsageError(f"there is no source of another architecture than {network} for inputs of shape {shape}")


@dataclass(frozen=True)
class Weights:
    """Of the penalties, per squared unit of the inputs, at a radius (linf) of .2."""

    penalty: float = 1.0
    jacobian: float = 0.01
    selective: float = 1.0

    def at(self, eps: float) -> Weights:
        """Those of another radius: a squared gradient counts by what a change of that size makes of it.

        >>> Weights().at(0.1).penalty
        0.25
        """
        return Weights(*((eps / 0.2) ** 2 * weight for weight in dataclasses.astuple(self)))

    def of(self, model: str) -> dict[str, float]:
        """Those that a model is trained with.

        >>> Weights().of("jsigr")
        {'jacobian': 0.01, 'selective': 1.0}
        """
        names = ("jacobian", "selective") if model.startswith("jsigr") else (model,)
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Scale:
    """How much is trained and measured.

    Args:
        training: of all models, so that they are compared after equally many steps.
        samples: largest number of training samples besides the held-out ones; None for all.
        steps: of the PGD that is trained on.
        grid: of the saliency of the masks.
        refresh: epochs between masks.
        transfer: first test images for transferred attacks.
        suite: first test images for the worst case of the suite.
        checked: first test images for the checks of that number.
        maps: first test images whose maps are judged.
        held: held-out images that decide a search.
    """

    training: FitSettings
    samples: int | None
    steps: int
    grid: int
    refresh: int
    transfer: int
    suite: int
    checked: int
    maps: int
    held: int


def _training(epochs: int, batch_size: int) -> FitSettings:
    return FitSettings(epochs=epochs, batch_size=batch_size, schedule="cosine", warmup=0.1)


SCALES = {
    "smoke": Scale(_training(2, 64), 600, 3, 4, 5, 60, 10, 4, 10, 50),
    "short": Scale(_training(10, 32), 8_000, 5, 7, 5, 2000, 200, 100, 300, 1000),
    "paper": Scale(_training(30, 128), None, 10, 8, 5, 10_000, 500, 300, 1000, 2000),
}


def fitting(scale: Scale, network: str) -> FitSettings:
    """How a network is trained: with the channels last, but for `ross_cnn`, whose penalties are slower so.

    >>> fitting(SCALES["smoke"], "lenet").channels_last, fitting(SCALES["smoke"], "ross_cnn").channels_last
    (True, False)
    """
    return dataclasses.replace(scale.training, channels_last=network != "ross_cnn")


def defenses(eps: float, scale: Scale, weights: Mapping[str, Weights] | None = None) -> dict[str, Defense]:
    """The training objectives, with the weights of each model where they are given.

    >>> list(defenses(0.1, SCALES["smoke"])) == list(LABELS)
    True
    """
    chosen = weights or {}
    pgd = AdversarialTraining(eps=eps, attack=PGD(steps=scale.steps, loss="ce"))

    def of(name: str) -> Weights:
        return chosen.get(name, Weights().at(eps))

    def jacobian(name: str) -> Defense:
        return JacobianPenalty(of(name).jacobian)

    def selective(name: str) -> Defense:
        saliency = BlurSaliency(grid=scale.grid)
        return SelectiveGradientPenalty(of(name).selective, saliency=saliency, refresh=scale.refresh)

    return {
        "plain": Plain(),
        "nat": AdversarialTraining(eps=eps, attack=FGSM("ce"), clean_weight=0.5, label="predicted"),
        "pat": pgd,
        "distilled": Distillation(),
        "penalty": InputGradientPenalty(of("penalty").penalty),
        "jacobian": jacobian("jacobian"),
        "selective": selective("selective"),
        "jsigr": jacobian("jsigr") + selective("jsigr"),
        "jsigr_pat": pgd + jacobian("jsigr") + selective("jsigr"),
    }
