"""Training on the worst that intervals allow, so that a certificate exists afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.bounds.certified.ball import Ball
from steadygrad.bounds.certified.crown import largest
from steadygrad.bounds.certified.intervals import Interval
from steadygrad.bounds.certified.layers import Affine, Box
from steadygrad.bounds.certified.network import Network
from steadygrad.bounds.certified.tracing import trace
from steadygrad.classifier import bounds_of
from steadygrad.data import Dataset
from steadygrad.defenses.defense import DEFENSES, Defense, State, Step
from steadygrad.values import Part, Positive, Share, Whole

_NAME = "certified training"


@DEFENSES.register(
    "certified_training",
    summary="cross-entropy of the least margins that intervals, or linear bounds, leave in a linf ball",
    reference="Gowal et al. 2018, arXiv 1810.12715 (IBP); Zhang et al. 2019, arXiv 1906.06316 (CROWN-IBP)",
    cost="3 forwards + 3 backwards; with `linear` as many more as there are classes",
)
@dataclass(frozen=True)
class CertifiedTraining(Defense):
    """weight x cross-entropy of the worst margins in the ball + (1 - weight) x cross-entropy.

    The worst margins are those that interval arithmetic leaves, the last linear layers taken as one. Over the first
    epochs the radius grows from 0 to `eps`, and the share of the worst margins from 0 to `weight`. Batch norm
    counts with its running statistics there, and dropout not at all. A network so trained is certified by
    `sg.bounds.CertifiedMargin` with ease.

    Args:
        eps, norm: radius in linf, within the bounds of the model's inputs; boxes hold no other ball tightly.
        weight: of the worst margins.
        ramp: epochs over which the radius grows.
        linear: share of the linear bounds (CROWN) in the worst margins in the first epochs, none when the radius has
            grown; 0 is IBP, 1 CROWN-IBP.

    >>> CertifiedTraining(0.1).ramp
    10
    """

    eps: Positive
    norm: Literal["linf"] = "linf"
    weight: Share = 0.5
    ramp: Whole = 10
    linear: Part = 0.0
    fits = True
    mixed_precision = "bounds in half precision hold for no network"

    def remember(self, epoch: int, model: nn.Module, train: Dataset, state: State) -> dict[str, Tensor]:
        """How far the radius has grown."""
        return {_NAME: torch.tensor(min(1.0, (epoch + 1) / self.ramp) if self.ramp else 1.0)}

    def terms(self, step: Step) -> dict[str, Tensor]:
        grown = float(step.state.memory.get(_NAME, torch.tensor(1.0)))
        clean = step.cross_entropy  # which looks at inputs and labels first
        margins = self._margins(step.model, step.x.detach(), step.y, grown)  # (N, K), 0 at the label
        worst = F.cross_entropy(-margins, step.y, reduction="none")
        share = self.weight * grown
        return {"certified": share * worst, "cross_entropy": (1 - share) * clean}

    def _margins(self, model: nn.Module, x: Tensor, y: Tensor, grown: float) -> Tensor:
        x = x.to(next((p.dtype for p in model.parameters() if p.is_floating_point()), x.dtype))
        network = trace(model, x, live=True)
        least, most = bounds_of(model) or (0.0, 1.0)
        low, high = ((x + sign * grown * self.eps).clamp(least, most) for sign in (-1, 1))
        boxes = boxes_of(network, (torch.minimum(low, x), torch.maximum(high, x)))
        classes = boxes[-1][0].shape[1]
        unit = torch.eye(classes, dtype=x.dtype, device=x.device)
        rows = unit[:, None] - unit[y]  # (K, N, K)
        share = self.linear * (1 - grown)
        found = least_of(network, boxes, rows) * (1 - share)
        if share:
            intervals = [Interval((a + b) / 2, a, b, torch.zeros_like(a)) for a, b in boxes]
            ball = Ball(x, boxes[0][0], boxes[0][1])
            found = found - share * largest(network, ball, intervals, len(network.steps), rows).T
        return found * (1 - unit[y])


def boxes_of(network: Network, box: Box) -> list[Box]:
    """The least and largest values of the input, of every layer and of the logits, with a graph."""
    boxes = [box]
    for layer, inputs in network.steps:
        boxes.append(layer.box(*(boxes[i] for i in inputs)))
    return boxes


def least_of(network: Network, boxes: list[Box], rows: Tensor) -> Tensor:
    """The least values (N, R) of the negative of linear functions (R, N, K) of the logits.

    They are taken back through the linear layers at the end first, where boxes would forget what belongs together.
    """
    place, constant = len(network.steps), rows.new_zeros(rows.shape[:2])
    while place and isinstance(layer := network.steps[place - 1][0], Affine):
        (before,) = network.steps[place - 1][1]
        rows, more = layer.back(rows, boxes[before][0])
        place, constant = before, constant + more
    low, high = boxes[place]
    middle, half = (low + high) / 2, (high - low) / 2
    return -((rows * middle + rows.abs() * half).flatten(2).sum(2) + constant).T
