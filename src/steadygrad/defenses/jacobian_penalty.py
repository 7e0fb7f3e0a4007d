"""Jacobian regularization: a penalty on the size of the Jacobian of the logits, by random projections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from steadygrad import randomness
from steadygrad.defenses.defense import DEFENSES, SECOND_ORDER, Defense, Step
from steadygrad.values import Count, NotNegative, check_settings


@DEFENSES.register(
    "jacobian",
    summary="penalty on the squared Frobenius norm of the Jacobian of the logits, by random projections",
    reference="Hoffman, Roberts and Yaida 2019, arXiv 1908.02729",
    cost="1 forward + `projections` backwards with a graph + 1 backward through all",
    order=2,
)
@dataclass(frozen=True)
class JacobianPenalty(Defense):
    """weight x ||J(x)||² / 2 of each sample's Jacobian J (K, *) of the K outputs.

    ||J||² is estimated by K / n times the sum of ||vᵀ J||² over n directions v, uniform on the unit
    sphere and drawn anew for each sample, projection and step: right in the mean. With batch
    normalization in training mode the gradient goes through the statistics of the batch.

    Args:
        weight: of the penalty, per squared unit of the inputs; .01 to .1 for MNIST in the paper.
        projections: n; None sums over all outputs, which is exact and takes K backwards.
        of: "logits" or "probabilities".

    Source: Hoffman, Roberts and Yaida 2019, arXiv 1908.02729.

    >>> JacobianPenalty(0.01)
    JacobianPenalty(weight=0.01, projections=1, of='logits')
    """

    weight: NotNegative
    projections: Count | None = 1
    of: Literal["logits", "probabilities"] = "logits"
    input_gradients = True
    mixed_precision = SECOND_ORDER

    def __post_init__(self) -> None:
        check_settings(self, of="output")

    def terms(self, step: Step) -> dict[str, Tensor]:
        outputs = step.logits if self.of == "logits" else step.logits.softmax(1)
        classes = outputs.shape[1]
        if self.projections is None:
            sizes = [_square(step.input_gradient(outputs[:, k])) for k in range(classes)]
        else:
            seeds, share = step.seeds(), classes / self.projections
            normals = (randomness.normal(seeds, outputs.detach(), draw) for draw in range(self.projections))
            directions = (v / torch.linalg.vector_norm(v, dim=1, keepdim=True) for v in normals)
            sizes = [share * _square(step.input_gradient((v * outputs).sum(1))) for v in directions]
        return {"jacobian": self.weight / 2 * torch.stack(sizes).sum(0)}


def _square(slope: Tensor) -> Tensor:
    return slope.flatten(1).square().sum(1)
