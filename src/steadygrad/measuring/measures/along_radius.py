"""What an attack makes of an input as its radius grows: the pictures behind the slider of a page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from steadygrad.attacks import Attack
from steadygrad.attributions import Attribution
from steadygrad.attributions.pixels import image_array, map_planes
from steadygrad.classifier import predict
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.threat import Threat

SHARES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
"""The radii, as multiples of that of the threat."""


@MEASURES.register(
    "along_radius",
    summary="where the search of an attack ends at several radii, as pictures with predictions and maps",
    reference="this library",
    cost="the passes of one restart of the attack, and one map for each attribution, at each radius",
    soundness="attack",
)
@dataclass(frozen=True)
class AlongRadius(Measure):
    """Writes `input` (n, R, C, H, W), `prediction` and `confidence` (n, R), and `map_i` (n, R, H, W), at each radius.

    The inputs are the raw points at which the attack ends, whether they fool the model or not: a search that stopped
    at its first hit would show each radius just beyond the border. Maps are of the class predicted for the clean input.
    """

    attack: Attack
    threat: Threat
    attributions: tuple[Attribution, ...] = ()
    shares: tuple[float, ...] = SHARES
    shard: ClassVar[int] = 10
    titled: ClassVar[str] = "pictures along the radius by {attack}, {threat}"
    may_refuse: ClassVar[bool] = True

    @property
    def radii(self) -> tuple[float, ...]:
        """In units of the data."""
        assert isinstance(self.threat.eps, float | int)
        return tuple(share * self.threat.eps for share in self.shares)

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x = models[0], batch.x
        target, found = predict(model, x, batch.seeds)[0], defaultdict[str, list[Tensor]](list)
        for eps in self.radii:
            points = self.attack.perturb(model, x, batch.y, self.threat.at(eps), generator=batch.seeds)
            prediction, confidence = predict(model, points, batch.seeds)
            columns = {"input": image_array(points), "prediction": prediction, "confidence": confidence}
            for place, attribution in enumerate(self.attributions):
                columns[f"map_{place}"] = map_planes(attribution(model, points, target), x)
            for name, values in columns.items():
                found[name].append(torch.as_tensor(values))
        return {name: torch.stack(values, 1) for name, values in found.items()}
