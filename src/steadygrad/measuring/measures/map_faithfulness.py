"""Whether the maps of a model point at what it uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from steadygrad import randomness
from steadygrad.attributions import Attribution, BlurSaliency, Saliency, faithfulness
from steadygrad.classifier import predict
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure

FAITHFUL: dict[str, bool] = {**faithfulness.MEASURES, "deletion below chance": True, "insertion above chance": True}
"""The columns, and whether more is better. Areas by chance are those of random maps on the same model."""


@MEASURES.register(
    "map_faithfulness",
    summary="energy, agreement, sparsity, deletion and insertion of a map, judged by a perturbation saliency",
    reference="Petsiuk et al. 2018, arXiv 1806.07421; Liu et al. 2022, arXiv 2207.13036",
    cost="two maps, and some 80 forwards",
)
@dataclass(frozen=True)
class MapFaithfulness(Measure):
    """Writes the measures of `FAITHFUL`, for images and the map of the predicted class.

    The image (`input`), the `map` and the `reference` (C, H, W) themselves are kept for some samples.

    Args:
        attribution: what is judged.
        reference: made of perturbations.
    """

    attribution: Attribution = Saliency(of="log_odds")
    reference: Attribution = BlurSaliency()
    shard: ClassVar[int] = 50
    kept: ClassVar[tuple[str, ...]] = ("input", "map", "reference")
    titled: ClassVar[str] = "faithfulness of {attribution}"
    draws_as = "map faithfulness"  # the same random maps for all attributions

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x = models[0], batch.x
        target = predict(model, x, batch.seeds)[0]
        maps, salience = self.attribution(model, x, target), self.reference(model, x, target)
        found = faithfulness.scores(model, x, maps, salience, target)
        chance = faithfulness.scores(model, x, randomness.uniform(batch.seeds, x), salience, target)
        found["deletion below chance"] = chance["deletion"] - found["deletion"]
        found["insertion above chance"] = found["insertion"] - chance["insertion"]
        pictures = {"input": x, "map": maps, "reference": salience}
        return {**{name: found[name].double() for name in FAITHFUL}, **pictures}
