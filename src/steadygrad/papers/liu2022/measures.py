"""What is measured on each model: one entry per image, so that models can be compared pairwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from steadygrad import randomness
from steadygrad.attacks import Attack
from steadygrad.attributions import BlurSaliency, Saliency
from steadygrad.attributions.faithfulness import MEASURES, scores
from steadygrad.classifier import Classifier, predict
from steadygrad.evaluation import SUITES, validity
from steadygrad.papers.bench import Bench
from steadygrad.papers.store import Array, Arrays
from steadygrad.registry import describe
from steadygrad.threat import linf

__all__ = ["JUDGED", "MapBench", "Measured"]

MAP = Saliency(of="log_odds")
JUDGE = BlurSaliency()
CHECKED = SUITES["fast"][0]
"""The attack whose accuracy is checked."""
JUDGED: dict[str, bool] = {**MEASURES, "deletion below chance": True, "insertion above chance": True}
"""The measures of maps, and whether more is better. Areas by chance are those of random maps on the same model."""


@dataclass
class Measured:
    """All measures by model, one entry per image; `transferred` by attack and model."""

    eps: float
    source: str
    right: dict[str, Array]
    transferred: dict[str, dict[str, Array]]
    kept: dict[str, Array]
    verdicts: dict[str, tuple[bool, str]]
    maps: dict[str, Arrays]


@dataclass
class MapBench(Bench):
    """Where the models of the experiment are attacked and their maps judged."""

    def transferred(self, source: Classifier, model: Classifier, attack: Attack, eps: float, count: int) -> Array:
        """Which of the first images (N,) a model gets right at the raw points of an attack on the source."""

        def points() -> Arrays:
            made = [attack.perturb(source, x, y, linf(eps), generator=seeds) for x, y, seeds in self._batches(count)]
            return {"points": torch.cat(made).cpu().numpy()}

        keys = self._keys(source, describe(attack), eps, count)
        made = torch.from_numpy(self.store.get("transferred points", points, *keys)["points"])

        def judged() -> Arrays:
            start, rows = 0, []
            for x, y, _ in self._batches(count):
                rows.append((predict(model, made[start : start + len(x)].to(x))[0] == y).cpu())
                start += len(x)
            return {"right": torch.cat(rows).numpy()}

        return self.store.get("transferred", judged, *self._keys(model, *keys))["right"]

    def verdict(self, model: Classifier, eps: float, count: int) -> tuple[bool, str]:
        """Whether the accuracy under the lead of the fast suite may be believed, and the sentence that says so."""

        def compute() -> Arrays:
            found = validity(
                model, self.data, CHECKED, linf(eps), count=count, name=model.name, seed=self.seed, device=self.device
            )
            return {"trustworthy": np.asarray(found.trustworthy), "text": np.asarray(found.text)}

        found = self.store.get("checks", compute, *self._keys(model, describe(CHECKED), eps, count))
        return bool(found["trustworthy"]), str(found["text"])

    def faithful(self, model: Classifier, count: int) -> Arrays:
        """The `JUDGED` measures (N,) of the gradient map of the predicted class, by name."""

        def compute() -> Arrays:
            rows: dict[str, list[Tensor]] = {name: [] for name in JUDGED}
            for x, _, seeds in self._batches(count):
                target = predict(model, x)[0]
                salience = JUDGE(model, x, target)
                found = scores(model, x, MAP(model, x, target), salience, target)
                chance = scores(model, x, randomness.uniform(seeds, x), salience, target)
                found["deletion below chance"] = chance["deletion"] - found["deletion"]
                found["insertion above chance"] = found["insertion"] - chance["insertion"]
                for name, values in found.items():
                    rows[name].append(values.double().cpu())
            return {name: torch.cat(values).numpy() for name, values in rows.items()}

        return self.store.get("maps", compute, *self._keys(model, describe(MAP), describe(JUDGE), count))

    def pictures(self, model: Classifier, count: int) -> Arrays:
        """Gradient maps and blur saliency (n, C, H, W) of the first images for the predicted class."""
        x = self.data.batch(slice(0, count))[0].to(self.device)
        target = predict(model, x)[0]
        maps = {"gradient": MAP(model, x, target), "saliency": JUDGE(model, x, target)}
        return {name: values.cpu().numpy() for name, values in maps.items()}
