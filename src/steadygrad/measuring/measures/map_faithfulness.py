"""Whether the maps of a model point at what it uses, and change when its layers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from steadygrad import randomness
from steadygrad.attacks.expectation import base_of
from steadygrad.attributions import Attribution, BlurSaliency, Saliency, faithfulness
from steadygrad.attributions.sanity import parameter_randomization
from steadygrad.classifier import predict
from steadygrad.errors import UsageError
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure

DRAWN_ANEW = "its predictions, and so its maps, are drawn anew in every call"
FAITHFUL: dict[str, bool] = {
    **{name: more for name, more in faithfulness.MEASURES.items() if name != "deletion gain"},
    "deletion below chance": True,
    "insertion above chance": True,
}
"""The columns, and whether more is better. Areas by chance are those of random maps on the same model.

The gain of deletion is left to audits: the columns are those of the tables that were measured for a paper.
"""


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
        return {**{name: found[name].cpu().double() for name in FAITHFUL}, **pictures}


@MEASURES.register(
    "randomized_layers",
    summary="rank correlation of a map with that of the model after its layers are randomized from the output down",
    reference="Adebayo et al. 2018, arXiv 1810.03292",
    cost="one map, and one for each layer with weights",
)
@dataclass(frozen=True)
class RandomizedLayers(Measure):
    """Writes Spearman's rank correlation with the map of the trained model, a column `after {layer}` for each layer.

    A map that stays as it is explains the input and not the model.

    Args:
        attribution: whose maps are compared, of the class that the trained model predicts.
        seed: of the random weights.
    """

    attribution: Attribution
    seed: int = 0
    shard: ClassVar[int] = 50
    may_refuse: ClassVar[bool] = True
    titled: ClassVar[str] = "{attribution} with random layers"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        if base_of(models[0]) is not models[0]:
            raise UsageError(DRAWN_ANEW)
        found = parameter_randomization(self.attribution, models[0], batch.x, seed=self.seed)
        return {f"after {layer}": values.cpu().double() for layer, values in zip(found.layers, found.similarity)}
