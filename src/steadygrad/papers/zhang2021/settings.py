"""The models, the radius of each data set, and what each scale trains and measures."""

from __future__ import annotations

from dataclasses import dataclass

from steadygrad.attacks import FGSM, PGD
from steadygrad.defenses import TRADES, AdversarialTraining, Defense, Plain, StableNeurons
from steadygrad.training import FitSettings

__all__ = ["LABELS", "SCALES", "SHARE", "Scale", "defenses", "eps_of", "fitting"]

LABELS = {
    "plain": "plain",
    "nat": "FGSM-trained (NAT)",
    "pat": "PGD-trained (PAT)",
    "trades": "TRADES",
    "sns": "SNS",
    "steady": "SNS, change alone (α = 0)",
    "pat_sns": "PAT + SNS",
}
SHARE = 0.1
"""Of the neurons of a layer, the sensitive ones."""

_BATCH = 64
_RADII = {"mnist": 0.2, "digits": 0.15, "cifar10": 8 / 255}


def eps_of(data: str) -> float:
    """The radius (linf) of the defenses and of the layer curves, by data set."""
    return _RADII.get(data, 8 / 255)


@dataclass(frozen=True)
class Scale:
    """How much is trained and measured.

    Args:
        epochs, least: of every training, in epochs and in steps, whichever is longer.
        samples: largest number of training samples; None for all.
        steps: of the PGD that the defenses train on.
        looked: held-out images from which the sensitive neurons and the best layer are chosen.
        images: first test images for the pairs whose neurons are patched.
        curves: first test images for the layer curves.
        suite: first test images for the worst case of the suite.
        draws: random sets of neurons.
    """

    epochs: int
    least: int
    samples: int | None
    steps: int
    looked: int
    images: int
    curves: int
    suite: int
    draws: int


SCALES = {
    "smoke": Scale(2, 20, 600, 3, 40, 60, 60, 10, 3),
    "short": Scale(4, 300, 6000, 4, 300, 2000, 1000, 150, 5),
    "paper": Scale(30, 4000, None, 10, 1000, 2000, 2000, 500, 20),
}


def fitting(scale: Scale, count: int) -> FitSettings:
    """How all models are trained on `count` samples: equally many steps.

    >>> fitting(SCALES["short"], 1000).epochs, fitting(SCALES["short"], 5500).epochs
    (19, 4)
    """
    epochs = max(scale.epochs, -(-scale.least // -(-count // _BATCH)))
    return FitSettings(epochs=epochs, batch_size=_BATCH, schedule="cosine", warmup=0.1)


def defenses(eps: float, steps: int) -> dict[str, Defense]:
    """The training objectives.

    >>> list(defenses(0.1, 7)) == list(LABELS)
    True
    """
    pgd = PGD(steps=steps, loss="ce")
    pat = AdversarialTraining(eps=eps, attack=pgd)
    sns = StableNeurons(eps=eps, attack=pgd, share=SHARE)
    return {
        "plain": Plain(),
        "nat": AdversarialTraining(eps=eps, attack=FGSM("ce"), clean_weight=0.5, label="predicted"),
        "pat": pat,
        "trades": TRADES(eps=eps, attack=PGD(steps=steps, loss="kl")),
        "sns": sns,
        "steady": StableNeurons(eps=eps, attack=pgd, share=SHARE, alpha=0.0),
        "pat_sns": pat + StableNeurons(eps=eps, attack=pgd, share=SHARE, alpha=0.0),
    }
