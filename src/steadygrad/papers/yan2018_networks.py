"""The networks of Yan, Guo and Zhang 2018: how much is trained, and how, by a TOML table for each of them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steadygrad import models
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.files import read_toml
from steadygrad.papers.study import Study
from steadygrad.papers.training import Training
from steadygrad.registry import build, configure
from steadygrad.training import FitSettings
from steadygrad.training.plan import moments

__all__ = ["LABELS", "METHODS", "RIVALS", "SCALES", "Recipe", "Scale", "left_out", "methods", "recipe_of"]

RIVALS = ("parseval", "adversarial_fgs", "adversarial_deepfool")
METHODS = (*RIVALS, "deep_defense")
LABELS = {
    "reference": "reference",
    "parseval": "Parseval",
    "adversarial_fgs": "adversarial training I (FGS)",
    "adversarial_deepfool": "adversarial training II (DeepFool)",
    "deep_defense": "Deep Defense",
    "combined": "Deep Defense + adversarial training (ours)",
}
_SETTINGS = Path(__file__).parent / "settings" / "yan2018"


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


@dataclass(frozen=True)
class Recipe:
    """How the networks of one architecture are trained: its TOML table, with the grid of the search."""

    network: str
    table: Mapping[str, Any]

    def reference(self, data: str = "train") -> Training:
        """How the reference model is trained, from random weights."""
        return self._training({"defense": {"name": "plain"}, "training": self.table["reference"]}, data, self._start)

    def method(
        self, name: str, changes: Mapping[str, Any] | None = None, data: str = "train", start: str = "reference"
    ) -> Training:
        """How a method fine-tunes the reference; `changes` are dotted settings, such as a search tries."""
        way = copy.deepcopy(self.table["methods"][name])
        way["training"] = {**self.table["finetuning"], **way.get("training", {})}
        for place, value in (changes or {}).items():
            part, _, key = place.partition(".")
            way[part][key] = value
        return self._training(way, data, start)

    def candidates(self, name: str) -> list[dict[str, Any]]:
        """All combinations of the grid of a method; without a grid, the recipe's own settings alone."""
        grid: Mapping[str, list[Any]] = self.table.get("search", {}).get(name, {})
        return [dict(zip(grid, values)) for values in itertools.product(*grid.values())]

    def shortened(self, part: float) -> Recipe:
        """The same with a part of the epochs of every training, at least one."""
        table = copy.deepcopy(dict(self.table))
        trainings = [
            table["reference"],
            table["finetuning"],
            *(m.get("training", {}) for m in table["methods"].values()),
        ]
        for training in trainings:
            if "epochs" in training:
                training["epochs"] = max(1, round(training["epochs"] * part))
        return Recipe(self.network, table)

    def _training(self, way: Mapping[str, Any], data: str, start: Any) -> Training:
        # TOML has no null: "none" stands for it.
        settings = {k: None if v == "none" else v for k, v in way["defense"].items() if k != "name"}
        fitting = configure(FitSettings, "the training", way["training"])
        return Training(build("defense", way["defense"]["name"], settings), fitting, start, data)

    def _start(self, data: Dataset, seed: int) -> Classifier:
        center, spread = moments(data)
        return models.build(self.network, data.shape, data.classes, seed=seed, mean=center, std=spread)


def recipe_of(network: str) -> Recipe:
    """The recipe of a network.

    >>> recipe_of("mlp").reference().defense
    Plain(temperature=1.0)
    """
    path = _SETTINGS / f"{network}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in _SETTINGS.glob("*.toml")))
        raise UsageError(f"there are no settings for {network!r}: the networks are {known}")
    return Recipe(network, read_toml(path))


def methods(study: Study) -> tuple[str, ...]:
    """The methods of the paper, and the combination of this library if it is asked for."""
    return (*METHODS, "combined") if study["combined"] else METHODS


def left_out(study: Study) -> list[str]:
    """What the trainings leave out or do differently."""
    scale = SCALES[study["scale"]]
    lines = [
        "FGS stays within the range of the pixels, which the paper does not ask for; DeepFool for ρ₂ does not.",
        "All methods fine-tune the same reference; the paper publishes settings for LeNet's Deep Defense only.",
    ]
    if study["dataset"] == "cifar10":
        lines.append(
            "CIFAR-10 in pixels of [0, 1], normalized per channel; the paper whitens, so its rows compare as ratios "
            "to the reference."
        )
    if scale.part < 1:
        lines.append(f"Trainings have {scale.part:g} of their epochs (at least one).")
    if scale.training is not None or scale.test is not None:
        lines.append(f"{study.size('train'):,} training samples and the first {scale.test} test samples.")
    lines.append(
        "The settings were chosen in this run, on a twelfth of the training data that the search did not train on."
        if study["search"]
        else "The settings are those of the network's table; --search chooses them anew on validation data."
    )
    return lines
