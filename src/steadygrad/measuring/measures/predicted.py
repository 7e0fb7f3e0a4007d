"""What a model says of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from steadygrad.classifier import frozen
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure


@MEASURES.register(
    "predicted",
    summary="the predicted class, and whether it is the label",
    reference="this library",
    cost="one forward",
    order=0,
)
@dataclass(frozen=True)
class Predicted(Measure):
    """Writes `prediction`, its probability `confidence`, whether it is `right`, and `rounded`.

    `rounded` says that float32 leaves nothing of 1 - p of the label: the slope of the cross-entropy then has
    lost a part, and attacks along it some of their strength. Other inputs than the samples, such as those that an
    attack made, are given as `input`.
    """

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        x = batch.of("input") if "input" in batch.given else batch.x
        with frozen(models[0], batch.seeds), torch.no_grad():
            probabilities = models[0](x).softmax(1)  # (n, K)
        confidence, prediction = probabilities.max(1)
        own = probabilities.gather(1, batch.y[:, None])[:, 0]
        return {
            "prediction": prediction,
            "confidence": confidence,
            "right": prediction == batch.y,
            "rounded": own == 1,
        }


@MEASURES.register(
    "log_probabilities",
    summary="the log-probabilities of all classes",
    reference="this library",
    cost="one forward",
    order=0,
)
@dataclass(frozen=True)
class LogProbabilities(Measure):
    """Writes the column `log_probabilities` (n, K)."""

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        with frozen(models[0], batch.seeds), torch.no_grad():
            return {"log_probabilities": models[0](batch.x).double().log_softmax(1).float()}
