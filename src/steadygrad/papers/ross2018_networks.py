"""The six networks of Ross and Doshi-Velez 2018: their objectives, the weights of these, and how they are trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from steadygrad.attacks import FGSM
from steadygrad.data import Dataset
from steadygrad.defenses import AdversarialTraining, Defense, Distillation, InputGradientPenalty, Plain
from steadygrad.papers.study import Study, settings_of
from steadygrad.training import FitSettings

SETTINGS = settings_of("ross2018")
LABELS: dict[str, str] = SETTINGS["labels"]
SCALES: dict[str, Any] = SETTINGS["scales"]
_AUTHORS_BATCH = 256


def ours(theirs: float) -> float:
    """A weight of the authors' code per sample: they take half the square of the gradient of a batch mean.

    >>> round(ours(56234.13), 1)
    109.8
    """
    return theirs / (2 * _AUTHORS_BATCH)


WEIGHTS = {data: {name: ours(w) for name, w in row.items()} for data, row in SETTINGS["weights"].items()}
"""The authors' choices, by data set, per sample and squared unit of epsilon."""

GRIDS = {
    name: tuple(ours(10 ** (power + 0.25 * i)) for i in range(13))
    for name, power in (("doubleback", 2), ("both", 2), ("insensitive", 0))
}
"""What the authors searched."""


def defenses(weights: Mapping[str, float], unit: float = 1.0) -> dict[str, Defense]:
    """The six training objectives; `unit` is the size of one unit of epsilon in the inputs.

    The weights are per squared unit of epsilon too, as the inputs of the authors' networks are in these units.

    >>> list(defenses(WEIGHTS["mnist"])) == list(LABELS)
    True
    """
    adversarial = AdversarialTraining(eps=0.3 * unit, attack=FGSM(loss="ce"), clean_weight=0.5, label="predicted")
    return {
        "normal": Plain(),
        "distilled": Distillation(50.0),
        "advtrain": adversarial,
        "insensitive": InputGradientPenalty(weights["insensitive"] * unit**2, label="uniform"),
        "doubleback": InputGradientPenalty(weights["doubleback"] * unit**2),
        # The penalty belongs to the clean half of the loss.
        "both": adversarial + InputGradientPenalty(weights["both"] * unit**2 / 2),
    }


def weights_of(data: str, scale: str) -> dict[str, float]:
    """The weights that a scale starts from: those of the authors at theirs, milder ones at shorter ones."""
    theirs = WEIGHTS.get(data, WEIGHTS["mnist"])
    return theirs if scale == "paper" else {name: min(theirs[name], ours(SETTINGS["brief"][name])) for name in theirs}


def fitting(scale: Mapping[str, Any], count: int, part: float = 1.0) -> FitSettings:
    """The settings of a training on `count` samples, or of one with a part of the epochs.

    >>> fitting(SCALES["short"], 55_000).epochs, fitting(SCALES["short"], 7_333).epochs
    (2, 7)
    """
    settings = FitSettings(**scale["training"], checkpoint_steps=scale["curve"], checkpoint_every=1)
    whole = max(settings.epochs, math.ceil(scale["least"] / math.ceil(count / settings.batch_size)))
    return dataclasses.replace(settings, epochs=max(1, round(whole * part)))


def unit_of(data: Dataset) -> float:
    """One unit of epsilon in the inputs: 1, but for SVHN a standard deviation of its pixels.

    The authors standardize each SVHN image and measure epsilon there.
    """
    if data.name != "svhn":
        return 1.0
    x, _ = data.take(1000, seed=0).tensors()
    return float(x.flatten(1).std(1).mean())


def left_out(study: Study) -> list[str]:
    """What the trainings leave out or do differently."""
    scale, count, data = SCALES[study["scale"]], study.size("train"), study["dataset"]
    settings = fitting(scale, count)
    batches = math.ceil(count / settings.batch_size) * settings.epochs
    falling = "" if settings.schedule == "constant" else ", falling to 0"
    lines = [
        f"Training: {batches:,} batches of {settings.batch_size} with Adam at {settings.lr:g}{falling} "
        "(the paper: 15,000 of 256 at 0.0002).",
        "A twelfth of the training data is held out for the curves and the search.",
        "The teacher of the distilled model is trained as long as its student (the paper: up to 10,000 batches).",
        "The weight of the penalty in the combined model is halved, since it belongs to the clean half of the loss.",
        "The study with people is not repeated.",
    ]
    if "samples" in scale:
        lines.append(f"Only {count:,} training samples and {scale['targeted']} images for the targeted attacks.")
    if len(scale["epsilons"]) < 7:
        lines.append(f"FGSM and TGSM at {', '.join(map(str, scale['epsilons']))} only.")
    if not study["search"]:
        lines.append("The weights of the penalties come from a table; --search chooses them on validation data.")
        if weights_of(data, study["scale"]) != WEIGHTS.get(data, WEIGHTS["mnist"]):
            lines.append(
                "The weight of the gradient penalty is milder than the paper's, with which so short a training leaves "
                "the network undecided."
            )
    if data not in WEIGHTS:
        lines.append(f"The paper has no {data}: weights from MNIST, and no published numbers beside ours.")
    if data == "svhn":
        lines.append(
            "SVHN: gray pixels in [0, 1] with epsilon in mean standard deviations of an image; the paper standardizes "
            "images first and adds a local contrast normalization inside the network, which is not done here."
        )
    return lines
