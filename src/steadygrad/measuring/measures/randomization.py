"""Whether a map explains the model: its similarity to the maps of the model with more and more random layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from steadygrad.attacks.expectation import base_of
from steadygrad.attributions import Attribution
from steadygrad.attributions.sanity import parameter_randomization
from steadygrad.errors import UsageError
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.measuring.measures.map_attacks import DRAWN_ANEW


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
        return {f"after {layer}": values.double() for layer, values in zip(found.layers, found.similarity)}
