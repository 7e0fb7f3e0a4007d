"""Double backpropagation: a penalty on the input gradient of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from steadygrad.defenses.defense import DEFENSES, SECOND_ORDER, Defense, Step
from steadygrad.values import NotNegative


@DEFENSES.register(
    "input_gradient",
    summary="penalty on the size of the input gradient of the cross-entropy (double backpropagation)",
    reference="Ross and Doshi-Velez 2018, arXiv 1711.09404",
    cost="1 forward + 1 backward with a graph + 1 backward through both",
    order=2,
)
@dataclass(frozen=True)
class InputGradientPenalty(Defense):
    """weight x the squared l2 norm (or the l1 norm) of the input gradient of each sample's loss.

    The authors' code sums half the squares of the gradient of the batch mean, so its weight is 2 x batch size times
    ours. With batch normalization in training mode the gradient goes through the statistics of the batch.

    Args:
        weight: of the penalty, per squared unit of the inputs.
        label: "true" for the loss of the true label; "uniform" for the cross-entropy with 1/K,
            which asks for insensitive confidence whatever the label.
        norm: "l2" (squared) or "l1".

    >>> InputGradientPenalty(10.0)
    InputGradientPenalty(weight=10.0, label='true', norm='l2')
    """

    weight: NotNegative
    label: Literal["true", "uniform"] = "true"
    norm: Literal["l2", "l1"] = "l2"
    input_gradients = True
    mixed_precision = SECOND_ORDER

    def terms(self, step: Step) -> dict[str, Tensor]:
        values = step.cross_entropy if self.label == "true" else -step.logits.log_softmax(1).mean(1)
        slope = step.input_gradient(values).flatten(1)
        size = slope.square().sum(1) if self.norm == "l2" else slope.abs().sum(1)
        return {"input_gradient": self.weight * size}
