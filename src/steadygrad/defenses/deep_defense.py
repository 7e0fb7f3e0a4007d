"""Deep Defense: training that increases the distance to the nearest boundary, as DeepFool estimates it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.attacks.deepfool_change import deepfool_change, relative_distance
from steadygrad.classifier import evaluating
from steadygrad.defenses.defense import DEFENSES, SECOND_ORDER, Defense, Step
from steadygrad.values import BelowOne, Count, NotNegative, Positive


@DEFENSES.register(
    "deep_defense",
    summary="exponential reward for the relative size of DeepFool's change, through all of its steps",
    reference="Yan, Guo and Zhang 2018, arXiv 1803.00404, eq. 5",
    cost="1 forward + 1 backward + DeepFool with a graph: up to `steps` x (2 forwards + `candidates` + 1 backwards)",
    order=2,
)
@dataclass(frozen=True)
class DeepDefense(Defense):
    """weight x exp(-correct rho) for samples predicted rightly, exp(wrong rho) for the others.

    rho is the l2 norm of DeepFool's change relative to that of the input. For a right sample the change leads
    away from its label and should be large, for a wrong one it leads to its label and should be small. The paper
    fine-tunes a trained network with it, batch normalization frozen; the search always sees the network in
    evaluation mode. Where a network is flat the distance to the label explodes: beyond `limit` the exponential of
    a wrong sample continues as a logarithm, or one such sample would outweigh all others.

    Args:
        weight: of the term (the paper's lambda; 15 on MNIST).
        correct, wrong: the exponents c and d (25 and 5 on MNIST, where the mean image was subtracted
            from the inputs: see `center`).
        limit: largest exponent (wrong x rho) of a wrong sample; 5 is a change as long as the input in
            the paper's settings.
        steps: of DeepFool.
        overshoot: share by which its change is lengthened.
        candidates: classes considered in each step; None for all.
        center: subtracted from the inputs before their norm is taken, e.g. the mean of the data.
        recompute: samples whose graph is in memory at once, each then computed twice; None for the whole batch.

    >>> DeepDefense(weight=15.0).steps
    5
    """

    weight: NotNegative
    correct: Positive = 25.0
    wrong: Positive = 5.0
    limit: Positive = 5.0
    steps: Count = 5
    overshoot: BelowOne = 0.02
    candidates: Count | None = 3
    center: float = 0.0
    recompute: Count | None = None
    mixed_precision = SECOND_ORDER

    def terms(self, step: Step) -> dict[str, Tensor]:
        with evaluating(step.model) as model:
            if self.recompute is None:
                rho, right = self.distances(model, step.x, step.y, create_graph=True)
            else:
                weights = [p for p in model.parameters() if p.requires_grad]
                rho, right = _Recomputed.apply(self, model, step.x.detach(), step.y, *weights)  # type: ignore[no-untyped-call]
        values = torch.where(right, torch.exp(-self.correct * rho), _exp(self.wrong * rho, self.limit))
        return {"deep_defense": self.weight * values}

    def distances(self, model: nn.Module, x: Tensor, y: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        """rho (N,) of each sample, away from its label if that is predicted and toward it if not; and whether it is."""
        change, right = deepfool_change(
            model, x.detach(), y, reach=True, steps=self.steps, overshoot=self.overshoot,
            candidates=self.candidates, create_graph=create_graph,
        )  # fmt: skip
        return relative_distance(change, x.detach(), self.center), right


def _exp(t: Tensor, limit: float) -> Tensor:
    """exp(t) (N,), and beyond the limit the logarithm that goes on with its value and slope."""
    far = torch.exp(torch.full_like(t, limit)) * (1 + limit * torch.log(t.clamp_min(limit) / limit))
    return torch.where(t > limit, far, torch.exp(t.clamp_max(limit)))


class _Recomputed(torch.autograd.Function):
    """The distances without a graph; the backward pass builds it again, a chunk of samples at a time."""

    @staticmethod
    def forward(
        ctx: Any, defense: DeepDefense, model: nn.Module, x: Tensor, y: Tensor, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.settings = defense, model, weights
        ctx.save_for_backward(x, y)
        size = defense.recompute or len(x)
        found = [
            defense.distances(model, x[i : i + size], y[i : i + size], create_graph=False)
            for i in range(0, len(x), size)
        ]
        rho, right = (torch.cat(parts).detach() for parts in zip(*found, strict=True))
        ctx.mark_non_differentiable(right)
        return rho, right

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        defense, model, weights = ctx.settings
        size, total = defense.recompute or len(upstream), [torch.zeros_like(w) for w in weights]
        whole = (*ctx.saved_tensors, upstream)
        with torch.enable_grad(), evaluating(model):
            for start in range(0, len(upstream), size):
                x, y, weight = (t[start : start + size] for t in whole)
                rho, _ = defense.distances(model, x, y, create_graph=True)
                if not rho.requires_grad:
                    continue
                slopes = torch.autograd.grad(rho, weights, weight, allow_unused=True)
                for sum_, slope in zip(total, slopes, strict=True):
                    if slope is not None:
                        sum_ += slope
        return None, None, None, None, *total
