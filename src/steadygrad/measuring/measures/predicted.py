"""What a model says of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad.calling import samples_may_fail
from steadygrad.classifier import frozen
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.precision import widened
from steadygrad.readable import readable

_LONGEST = 120  # letters of a reason


@MEASURES.register(
    "predicted",
    summary="the predicted class, and whether it is the label",
    reference="this library",
    cost="one forward",
    order=0,
)
@dataclass(frozen=True)
class Predicted(Measure):
    """Writes `prediction`, its probability `confidence`, whether it is `right`, `rounded` and `failed`.

    `rounded` says that float32 leaves nothing of 1 - p of the label: the slope of the cross-entropy then has
    lost a part, and attacks along it some of their strength. Other inputs than the samples, such as those that an
    attack made, are given as `input`. `failed` says why there is no answer, where the model raises or its logits are
    not finite; the prediction then is -1.
    """

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        x = batch.of("input") if "input" in batch.given else batch.x
        with frozen(models[0], batch.seeds), torch.no_grad():
            logits = models[0](x)  # (n, K)
        answered = torch.isfinite(logits).all(1)
        probabilities = logits.softmax(1)
        confidence, prediction = probabilities.max(1)
        prediction = torch.where(answered, prediction, -1)
        own = probabilities.gather(1, batch.y[:, None])[:, 0]
        return {
            "prediction": prediction,
            "confidence": confidence,
            "right": prediction == batch.y,
            "rounded": own == 1,
            "failed": [
                "" if there else _why(models[0], x[i : i + 1], batch.seeds[i : i + 1])
                for i, there in enumerate(answered.tolist())
            ],
        }


def _why(model: nn.Module, x: Tensor, seeds: Tensor) -> str:
    """Why there is no answer to one sample (1, *)."""
    try:
        with samples_may_fail(False), frozen(model, seeds), torch.no_grad():
            model(x)
    except Exception as error:
        cause = error.__cause__ or error
        return f"{type(cause).__name__}: {readable(str(cause))[:_LONGEST]}"
    return "NaN or infinite logits"


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
            return {"log_probabilities": widened(models[0](batch.x)).log_softmax(1).float()}
