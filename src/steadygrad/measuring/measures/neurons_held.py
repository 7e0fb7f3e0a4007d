"""What a model predicts for adversarial inputs while some of its neurons are held at their clean values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from steadygrad import neurons
from steadygrad.classifier import frozen, predict
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure


@MEASURES.register(
    "neurons_held",
    summary="whether an adversarial input is classified rightly again while a layer's neurons are held",
    reference="Zhang et al. 2021, arXiv 1909.06978, section IV",
    cost="one forward, and one for each set of neurons",
    soundness="estimate",
    order=0,
)
@dataclass(frozen=True)
class NeuronsHeld(Measure):
    """Writes with which share of the sets of neurons the prediction is right: `most`, `random` and `least` sensitive.

    The adversarial inputs are given as `input`, the sensitivities (neurons,) of the layer are shared as `sigma`.

    Args:
        layer: its name.
        share: of the neurons that are held, at what they put out for the clean input.
        draws: of as many random neurons.
    """

    layer: str
    share: float = 0.1
    draws: int = 5
    may_refuse: ClassVar[bool] = True

    @property
    def title(self) -> str:
        """The layer."""
        return f"neurons held in {self.layer}"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        """Ask the first model."""
        model, adversarial = models[0], batch.of("input")
        sigma = {self.layer: torch.from_numpy(batch.shared["sigma"])}
        sets = {
            "most": [neurons.select(sigma, self.share, "most")],
            "random": [neurons.select(sigma, self.share, "random", seed=seed) for seed in range(self.draws)],
            "least": [neurons.select(sigma, self.share, "least")],
        }
        with frozen(model), torch.no_grad(), neurons.recorded(model, (self.layer,)) as outputs:
            model(batch.x)
        clean, columns = dict(outputs), {}
        for choice, drawn in sets.items():
            hits = []
            for chosen in drawn:
                with neurons.patched(model, clean, chosen):
                    hits.append(predict(model, adversarial)[0] == batch.y)
            columns[choice] = torch.stack(hits).double().mean(0)
        return columns
