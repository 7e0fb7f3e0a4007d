"""The models, the radius of each data set, and what each scale trains and measures."""

from __future__ import annotations

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
    "LABELS",
    "RIVALS",
    "SCALES",
    "SEARCHED",
    "TRANSFERRED",
    "Scale",
    "Weights",
    "defenses",
    "eps_of",
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
SEARCHED = ("penalty", "jacobian", "selective", "jsigr")
FACTORS = (0.1, 1.0, 10.0)
"""By which a search multiplies the weights."""

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
    """Of the penalties, per squared unit of the inputs; a search multiplies them per model."""

    penalty: float = 1.0
    jacobian: float = 0.01
    selective: float = 1.0


@dataclass(frozen=True)
class Scale:
    """How much is trained and measured.

    Args:
        training: of all models, so that they are compared after equally many steps.
        samples: largest number of training samples; None for all.
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
    "short": Scale(_training(6, 128), 12_000, 5, 7, 2, 2000, 200, 100, 300, 500),
    "paper": Scale(_training(30, 128), None, 10, 8, 5, 10_000, 500, 300, 1000, 2000),
}


def defenses(eps: float, scale: Scale, factors: dict[str, float] | None = None) -> dict[str, Defense]:
    """The training objectives; `factors` multiply the weights of a model's penalties.

    >>> list(defenses(0.1, SCALES["smoke"])) == list(LABELS)
    True
    """
    chosen, base = factors or {}, Weights()
    pgd = AdversarialTraining(eps=eps, attack=PGD(steps=scale.steps, loss="ce"))

    def jacobian(name: str) -> Defense:
        return JacobianPenalty(base.jacobian * chosen.get(name, 1.0))

    def selective(name: str) -> Defense:
        weight, saliency = base.selective * chosen.get(name, 1.0), BlurSaliency(grid=scale.grid)
        return SelectiveGradientPenalty(weight, saliency=saliency, refresh=scale.refresh)

    return {
        "plain": Plain(),
        "nat": AdversarialTraining(eps=eps, attack=FGSM("ce"), clean_weight=0.5, label="predicted"),
        "pat": pgd,
        "distilled": Distillation(),
        "penalty": InputGradientPenalty(base.penalty * chosen.get("penalty", 1.0)),
        "jacobian": jacobian("jacobian"),
        "selective": selective("selective"),
        "jsigr": jacobian("jsigr") + selective("jsigr"),
        "jsigr_pat": pgd + jacobian("jsigr") + selective("jsigr"),
    }
