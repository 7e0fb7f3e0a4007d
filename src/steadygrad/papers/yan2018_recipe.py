"""How Deep Defense and its rivals are trained: a TOML table for each network."""

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
from steadygrad.papers.training import Training
from steadygrad.registry import build, configure
from steadygrad.training import FitSettings

__all__ = ["Recipe", "recipe_of"]

_SETTINGS = Path(__file__).parent / "settings" / "yan2018"


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
        x, _ = data.take(10_000, seed=0).tensors()
        rows = x.transpose(0, 1).flatten(1)
        center, spread = rows.mean(1).tolist(), rows.std(1).clamp_min(1e-3).tolist()
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
