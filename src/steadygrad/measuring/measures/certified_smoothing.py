"""What is certified of a model under noise: the class of its smoothed classifier, and within which radius it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from steadygrad.attacks.expectation import network_of
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.memory import room_times
from steadygrad.randomized_smoothing import RandomizedSmoothing


@MEASURES.register(
    "certified_smoothing",
    summary="the class of the smoothed classifier, and the l2 radius within which it is certified",
    reference="Cohen, Rosenfeld and Kolter 2019, arXiv 1902.02918",
    cost="n0 + n forwards of the model beneath",
    soundness="certified",
    order=0,
)
@dataclass(frozen=True)
class CertifiedSmoothing(Measure):
    """Writes `prediction`, -1 for an abstention, `radius` and `p_lower`, as `RandomizedSmoothing.certify` gives them.

    The model is the one beneath, or a smoothed one, of which the one beneath is taken.
    """

    smoothing: RandomizedSmoothing

    titled: ClassVar[str] = "randomized smoothing"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, passes = network_of(models[0])
        # There is room for so many samples with all draws of the soft vote.
        with room_times(passes):
            found = self.smoothing.certify(model, batch.x, generator=batch.seeds)
        return {"prediction": found.prediction, "radius": found.radius, "p_lower": found.p_lower}
