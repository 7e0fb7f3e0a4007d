"""How much explanations move when the input does: similarity of maps before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from steadygrad.attacks import Attack, RandomNoise
from steadygrad.attributions import Attribution
from steadygrad.attributions.similarity import SIMILARITIES
from steadygrad.classifier import predict
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.registry import label_of
from steadygrad.threat import Threat

SIMILARITY_OF_MAPS = {
    "top-10 % intersection": SIMILARITIES["top_k_intersection"],
    "Kendall tau-b": SIMILARITIES["kendall"],
}
WAYS = ("random noise", "attack on the prediction")
"""What changes the inputs; noise is what the attack should be compared with."""


@MEASURES.register(
    "map_stability",
    summary="similarity of a map before and after noise, and before and after an attack on the prediction",
    reference="Ghorbani et al. 2019, arXiv 1710.10547",
    cost="the passes of the attack, and three maps for each attribution",
)
@dataclass(frozen=True)
class MapStability(Measure):
    """Compares maps of the class predicted when clean; a column for each attribution, way and similarity.

    Both ways change the input by as much as the threat allows, and once for all attributions. The attack was not made
    to move the explanation, so this is no worst case.
    """

    attributions: tuple[Attribution, ...]
    attack: Attack
    threat: Threat
    shard: ClassVar[int] = 50
    titled: ClassVar[str] = "stability of maps"
    draws_as = "map stability"

    @staticmethod
    def column(attribution: Attribution, way: str, similarity: str) -> str:
        """The name of a column."""
        return f"{label_of(attribution)}: {way}: {similarity}"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x = models[0], batch.x
        target = predict(model, x, batch.seeds)[0]
        before = [attribution(model, x, target) for attribution in self.attributions]
        columns = {}
        for way, attack in zip(WAYS, (RandomNoise(), self.attack)):
            points = attack.perturb(model, x, batch.y, self.threat, generator=batch.seeds)
            for attribution, map_before in zip(self.attributions, before):
                after = attribution(model, points, target)
                for name, row in SIMILARITY_OF_MAPS.items():
                    found = row.function(map_before, after).cpu().double()
                    columns[self.column(attribution, way, name)] = found
        return columns
