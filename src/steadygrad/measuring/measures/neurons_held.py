"""What a model predicts while some of its neurons are held at their clean values, or at zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad import neurons
from steadygrad.classifier import frozen, predict
from steadygrad.errors import unknown_name
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.measuring.table import Array, Table

if TYPE_CHECKING:
    from steadygrad.measuring.runner import Tables

Way = Literal["patched", "off", "clean"]
WAYS: tuple[Way, ...] = get_args(Way)
"""Held at their clean values; at zero for the adversarial input; at zero for the clean one."""
Choice = Literal["most", "random", "least"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
"""Which neurons are held, by sensitivity."""


@MEASURES.register(
    "neurons_held",
    summary="whether an input is classified rightly while a layer's neurons are held at clean values or at zero",
    reference="Zhang et al. 2021, arXiv 1909.06978, section IV",
    cost="one forward, and one for each set of neurons",
    order=0,
)
@dataclass(frozen=True)
class NeuronsHeld(Measure):
    """Writes with which share of the sets of neurons the prediction is right: `most`, `random` and `least` sensitive.

    The adversarial inputs are given as `input`, the sensitivities (neurons,) of the layer are shared as `sigma`.

    Args:
        layer: its name.
        share: of the neurons that are held.
        draws: of as many random neurons.
        way: one of `WAYS`.
        seed: of the first random neurons.
    """

    layer: str
    share: float = 0.1
    draws: int = 5
    way: Way = "patched"
    seed: int = 0
    may_refuse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise unknown_name("way to hold neurons", self.way, WAYS)

    @property
    def title(self) -> str:
        """The layer and the way."""
        clean = ", clean inputs" if self.way == "clean" else ""
        return f"neurons {'held' if self.way == 'patched' else 'off'} in {self.layer}{clean}"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model = models[0]
        sigma = {self.layer: torch.from_numpy(batch.shared["sigma"])}
        drawn = range(self.seed, self.seed + self.draws)
        sets = {choice: [neurons.select(sigma, self.share, choice)] for choice in CHOICES}
        sets["random"] = [neurons.select(sigma, self.share, "random", seed=seed) for seed in drawn]
        with frozen(model), torch.no_grad(), neurons.recorded(model, (self.layer,)) as outputs:
            model(batch.x)
        clean, points = dict(outputs), batch.x if self.way == "clean" else batch.of("input")

        def right(chosen: dict[str, Tensor]) -> Tensor:
            patched = self.way == "patched"
            with neurons.patched(model, clean, chosen) if patched else neurons.switched_off(model, chosen):
                return predict(model, points)[0] == batch.y

        return {
            choice: torch.stack(list(map(right, several))).cpu().double().mean(0) for choice, several in sets.items()
        }


def shares_right(tables: Tables, model: str, pairs: Table, sigma: Array, measure: NeuronsHeld) -> dict[str, Array]:
    """For each fooled image (n,), by choice: the share of the sets of neurons with which it is right.

    Args:
        tables: of the same data.
        pairs: a table of `NeuronChanges` of the first images, with all of their inputs kept.
        sigma: sensitivities (neurons,) of the layer.
    """
    fooled = np.flatnonzero(pairs["fooled"]).tolist()
    if not fooled:
        return {choice: np.zeros(0) for choice in CHOICES}
    given = {"input": pairs.kept("input").values[fooled]}
    table = tables.run(measure, model, rows=fooled, given=given, shared={"sigma": sigma})
    return {choice: table[choice] for choice in CHOICES}
