"""What the pictures of a report show: maps of clean and adversarial inputs, and inputs pushed into every class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from steadygrad.attacks import Attack
from steadygrad.attributions import Attribution
from steadygrad.attributions.pixels import image_array, map_planes
from steadygrad.classifier import predict
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.memory import at_once
from steadygrad.threat import Threat, per_sample


@MEASURES.register(
    "pictured",
    summary="an input and the adversarial one of its record as pictures, with the maps of both",
    reference="this library",
    cost="two maps for each attribution",
)
@dataclass(frozen=True)
class Pictured(Measure):
    """Writes `clean` and `adversarial` pictures (C, H, W), and a map (H, W) of each for each attribution.

    The adversarial inputs are given as `input`, so that a picture shows the very input that a record counted.
    Maps are of the class predicted for the clean input.
    """

    attributions: tuple[Attribution, ...]
    shard: ClassVar[int] = 50
    titled: ClassVar[str] = "pictures"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x, adversarial = models[0], batch.x, batch.of("input")
        target = predict(model, x, batch.seeds)[0]
        columns: dict[str, Any] = {"clean": image_array(x), "adversarial": image_array(adversarial)}
        for place, attribution in enumerate(self.attributions):
            for kind, inputs in (("clean", x), ("adversarial", adversarial)):
                columns[f"map_{kind}_{place}"] = map_planes(attribution(model, inputs, target), x)
        return columns


@MEASURES.register(
    "every_target",
    summary="what an attack makes of an input for every class as its target",
    reference="Ross and Doshi-Velez 2018, arXiv 1711.09404, figure 6",
    cost="the passes of the attack for each class",
    soundness="attack",
)
@dataclass(frozen=True)
class EveryTarget(Measure):
    """Attacks each sample towards the first `classes` classes.

    Writes `pictures` (n, K, C, H, W), in which the original stands for the sample's own class, `success` (n, K), and
    how many entries `changed` (n, K).
    """

    attack: Attack
    threat: Threat
    classes: int
    shard: ClassVar[int] = 50
    titled: ClassVar[str] = "{attack}, targeted"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        x, y, count = batch.x, batch.y, len(batch.x)
        target = torch.arange(self.classes, device=x.device).repeat(count)  # (n * K,)
        inputs, own = x.repeat_interleave(self.classes, 0), y.repeat_interleave(self.classes, 0)
        seeds = torch.tensor([(s + k) % 2**62 for s in batch.seeds.tolist() for k in range(self.classes)])
        step = at_once(len(inputs), x.shape[1:], x.device)
        found = [
            self.attack(models[0], inputs[some], own[some], self.threat, target=target[some], generator=seeds[some])
            for some in (slice(first, first + step) for first in range(0, len(inputs), step))
        ]
        success = torch.cat([part.success for part in found])
        # A clean mistake can be attacked towards its own label too; the diagonal shows the original.
        shown = torch.where(per_sample(target == own, x), inputs, torch.cat([part.inputs for part in found]))
        pictures = image_array(shown)
        return {
            "pictures": pictures.reshape(count, self.classes, *pictures.shape[1:]),
            "success": success.view(count, self.classes),
            "changed": (shown != inputs).flatten(1).sum(1).view(count, self.classes),
        }
