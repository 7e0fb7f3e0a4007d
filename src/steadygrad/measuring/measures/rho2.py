"""Relative DeepFool distance: the robustness score of Moosavi-Dezfooli et al. and Yan et al."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad.attacks import DeepFool
from steadygrad.attacks.deepfool_change import deepfool_change
from steadygrad.classifier import frozen, predict
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.measuring.statistics import Estimate, mean
from steadygrad.measuring.table import Table
from steadygrad.precision import widened

FIVE_STEPS = DeepFool(steps=5, overshoot=0.02, candidates=9)
"""DeepFool as the score is defined by Yan et al. 2018: five steps, overshoot 0.02, the nine likeliest classes."""


@MEASURES.register(
    "rho2",
    summary="l2 norm of DeepFool's change beside that of the input",
    reference="Moosavi-Dezfooli et al. 2016, arXiv 1511.04599, eq. 12; Yan et al. 2018, arXiv 1803.00404",
    cost="the passes of DeepFool, and two forwards",
)
@dataclass(frozen=True)
class Rho2(Measure):
    """Writes the l2 norm of the `change` that DeepFool makes, and those of the input and of the input minus a center.

    Every sample counts with the change that DeepFool made, whether it sufficed or not (`turned`), and
    misclassified ones with the change away from the predicted class. Changes may leave the bounds of the
    inputs, as those of the published figures do. A shared column `center` (*), such as the mean training
    image, gives the centered norm; without one it is NaN.
    """

    attack: DeepFool = FIVE_STEPS
    titled: ClassVar[str] = "rho2 by {attack}"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x, seeds = models[0], batch.x, batch.seeds
        clean, _ = predict(model, x, seeds)
        steps, overshoot, candidates = self.attack.steps, self.attack.overshoot, self.attack.candidates
        with frozen(model, seeds):
            change = deepfool_change(model, x, clean, steps=steps, overshoot=overshoot, candidates=candidates).change
        now, _ = predict(model, x + change, seeds)
        center = batch.shared.get("center")
        centered = np.full(len(x), np.nan) if center is None else _norm(x - torch.from_numpy(center).to(x))
        return {
            "clean_prediction": clean,
            "turned": now != clean,
            "change": _norm(change),
            "norm": _norm(x),
            "centered_norm": centered,
        }


def mean_ratio(table: Table, norm: str = "norm") -> Estimate | None:
    """The score: the mean of change over norm, or over `centered_norm`.

    A sample of norm zero has no relative distance and is left out, which the count shows; None where no
    center was given, or no sample has a norm.
    """
    below = table[norm]
    there = below > 0  # not for NaN
    return mean(table["change"][there] / below[there]).within(0.0, math.inf) if there.any() else None


def _norm(x: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(widened(x).flatten(1), dim=1)
    return size
