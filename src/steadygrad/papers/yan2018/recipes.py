"""How each network is trained: one TOML table per network, with the grid of its search."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steadygrad.defenses import Defense
from steadygrad.errors import UsageError
from steadygrad.files import read_toml
from steadygrad.registry import build, configure
from steadygrad.training import FitSettings

__all__ = ["COMBINED", "LABELS", "METHODS", "Recipe", "Way", "load"]

METHODS = ("parseval", "adversarial_fgs", "adversarial_deepfool", "deep_defense")
COMBINED = "combined"
LABELS = {
    "reference": "reference",
    "parseval": "Parseval",
    "adversarial_fgs": "adversarial training I (FGS)",
    "adversarial_deepfool": "adversarial training II (DeepFool)",
    "deep_defense": "Deep Defense",
    "combined": "Deep Defense + adversarial training (ours)",
}

_FOLDER = Path(__file__).parent / "settings"


@dataclass(frozen=True)
class Way:
    """One way of training: an objective and its settings."""

    defense: Defense
    training: FitSettings


@dataclass(frozen=True)
class Recipe:
    """The table of one network.

    `reference` is trained from random weights, every method from the reference; `grids` holds, by
    method, the settings that a search tries, as dotted names with lists of values.
    """

    table: Mapping[str, Any]

    def methods(self, combined: bool) -> tuple[str, ...]:
        """The methods of the paper, and the combination of this library if it is asked for."""
        return (*METHODS, COMBINED) if combined else METHODS

    @property
    def reference(self) -> Way:
        """How the reference model is trained."""
        return _way({"defense": {"name": "plain"}, "training": self.table["reference"]}, {})

    def method(self, name: str, changes: Mapping[str, Any] | None = None) -> Way:
        """How a method fine-tunes the reference; `changes` are dotted settings, such as a search tries."""
        table = copy.deepcopy(self.table["methods"][name])
        for place, value in (changes or {}).items():
            part, _, key = place.partition(".")
            table.setdefault(part, {})[key] = value
        return _way(table, self.table["finetuning"])

    def candidates(self, name: str) -> list[dict[str, Any]]:
        """All combinations of the grid of a method; without a grid, the recipe's own settings alone."""
        grid: Mapping[str, list[Any]] = self.table.get("search", {}).get(name, {})
        return [dict(zip(grid, values)) for values in itertools.product(*grid.values())]

    def shortened(self, part: float) -> Recipe:
        """The same with a part of the epochs of every training, at least one."""
        table = copy.deepcopy(dict(self.table))
        places = [table["reference"], table["finetuning"], *(m.get("training", {}) for m in table["methods"].values())]
        for place in places:
            if "epochs" in place:
                place["epochs"] = max(1, round(place["epochs"] * part))
        return Recipe(table)


def _way(table: Mapping[str, Any], base: Mapping[str, Any]) -> Way:
    # TOML has no null: "none" stands for it.
    settings = {k: None if v == "none" else v for k, v in table["defense"].items() if k != "name"}
    fitting = configure(FitSettings, "the training", {**base, **table.get("training", {})})
    return Way(build("defense", table["defense"]["name"], settings), fitting)


def load(network: str) -> Recipe:
    """The recipe of a network.

    >>> load("mlp").reference.defense
    Plain(temperature=1.0)
    """
    path = _FOLDER / f"{network}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in _FOLDER.glob("*.toml")))
        raise UsageError(f"there are no settings for {network!r}: the networks are {known}")
    return Recipe(read_toml(path))


def plain(way: Way) -> dict[str, Any]:
    """A way of training as plain data."""
    from steadygrad.registry import describe

    return {"defense": describe(way.defense), "training": dataclasses.asdict(way.training)}
