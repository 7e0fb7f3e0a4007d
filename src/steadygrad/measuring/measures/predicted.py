"""What a model says of the inputs as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from steadygrad.classifier import predict
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure

__all__ = ["Predicted"]


@MEASURES.register(
    "predicted",
    summary="the predicted class and its probability",
    reference="this library",
    cost="one forward",
    soundness="estimate",
    order=0,
)
@dataclass(frozen=True)
class Predicted(Measure):
    """Writes `prediction` and `confidence`, its probability."""

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        """Ask the first model."""
        prediction, confidence = predict(models[0], batch.x, batch.seeds)
        return {"prediction": prediction, "confidence": confidence}
