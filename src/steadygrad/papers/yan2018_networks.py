"""The networks of Yan, Guo and Zhang 2018: how much is trained, and how, by a TOML table for each of them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steadygrad import models
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.papers.study import Study, settings_of
from steadygrad.papers.training import Training
from steadygrad.registry import build, configure
from steadygrad.training import FitSettings
from steadygrad.training.train_plan import moments

RIVALS = ("parseval", "adversarial_fgs", "adversarial_deepfool")
METHODS = (*RIVALS, "deep_defense")
SETTINGS = settings_of("yan2018")
LABELS: dict[str, str] = SETTINGS["labels"]
SCALES: dict[str, Any] = SETTINGS["scales"]


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
        trainings = [table["reference"], table["finetuning"]]
        for training in [*trainings, *(method.get("training", {}) for method in table["methods"].values())]:
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
    return Recipe(network, settings_of("yan2018", network))


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
    if scale["part"] < 1:
        lines.append(f"Trainings have {scale['part']:g} of their epochs (at least one).")
    if "test" in scale:
        lines.append(f"{study.size('train'):,} training samples and the first {scale['test']} test samples.")
    lines.append(
        "The settings were chosen in this run, on a twelfth of the training data that the search did not train on."
        if study["search"]
        else "The settings are those of the network's table; --search chooses them anew on validation data."
    )
    return lines
