"""Training for explanations that do not change under attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.attacks import PGD, Attack
from steadygrad.attacks.maps.map_losses import MAP_LOSSES, Reference
from steadygrad.attacks.run import Run
from steadygrad.attributions import Attribution, IntegratedGradients
from steadygrad.attributions.gradients import gauss_legendre
from steadygrad.attributions.pixels import unit
from steadygrad.classifier import check_classes
from steadygrad.defenses.defense import DEFENSES, SECOND_ORDER, Defense, Step
from steadygrad.derivatives import math_attention
from steadygrad.threat import Norm
from steadygrad.values import Count, Limit, NotNegative, Positive

_Norm = Annotated[Norm, Limit("linf or l2, in which the worst point is sought", lambda norm: norm in ("linf", "l2"))]

# Values (A,) of a model at points (A, *) with labels (A,), given the clean inputs (A, *).
Objective = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class _Ascent(Attack):
    """Projected steps of falling length up an objective of the defense, from a random point."""

    objective: Objective
    steps: int
    norms = ("linf", "l2")

    def search(self, run: Run) -> Tensor | None:
        points = run.threat.random(run.x, run.seeds)
        radius = run.threat.radius(run.x).view(-1, *[1] * (points.ndim - 1))
        for i in range(self.steps):
            leaf = points.detach().requires_grad_()
            with torch.enable_grad(), math_attention():
                (slope,) = torch.autograd.grad(self.objective(run.model, run.x, leaf, run.y).sum(), leaf)
            way = run.threat.steepest(torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0))
            length = max(0.25, 5 / (self.steps + 1)) * (1 - i / self.steps)
            points = run.threat.constrain(run.x, points + length * radius * way)
        return points


@DEFENSES.register(
    "ig_norm",
    summary="penalty on the l1 norm of the integrated gradients of the loss from x to the worst point nearby",
    reference="Chen et al. 2019, arXiv 1905.09957, IG-NORM and IG-SUM-NORM",
    cost="(steps + 1) x path x (1 forward + 1 backward with a graph + 1 backward through both)",
    order=2,
    norms=("linf", "l2"),
)
@dataclass(frozen=True, kw_only=True)
class IGNorm(Defense):
    """weight x ||IG(x -> x')||_1, IG of the cross-entropy along the line from x to the worst x' of the ball.

    kind "norm" is IG-NORM, a penalty with the largest norm. kind "sum-norm" is IG-SUM-NORM: the largest sum of
    the loss at x' and weight times the norm; it fits the data itself. The worst point is sought in evaluation
    mode by projected steps.

    Args:
        weight: lambda ("norm") or beta ("sum-norm") in the paper.
        eps: radius of the ball, in units of the inputs.
        norm: "linf" or "l2".
        kind: "norm" or "sum-norm".
        steps: steps of the search for x'.
        path: points on the line (Gauss-Legendre).

    >>> IGNorm(weight=1.0, eps=0.1).kind
    'norm'
    """

    weight: NotNegative
    eps: Positive
    norm: _Norm = "linf"
    kind: Literal["norm", "sum-norm"] = "norm"
    steps: Count = 5
    path: Count = 4
    mixed_precision = SECOND_ORDER

    @property
    def fits(self) -> bool:  # type: ignore[override]
        """IG-SUM-NORM has the loss at x' in it."""
        return self.kind == "sum-norm"

    def terms(self, step: Step) -> dict[str, Tensor]:
        points = step.perturb(_Ascent(self._objective, self.steps), self.norm, self.eps, step.y)
        size = self.weight * self._size(step.model, step.x.detach(), points, step.y)
        if self.kind == "norm":
            return {"attribution_norm": size}
        return {"adversarial": F.cross_entropy(step.at(points), step.y, reduction="none"), "attribution_norm": size}

    def _objective(self, model: nn.Module, x: Tensor, points: Tensor, y: Tensor) -> Tensor:
        size = self._size(model, x, points, y)
        if self.kind == "norm":
            return size
        return F.cross_entropy(model(points), y, reduction="none") + self.weight * size

    def _size(self, model: nn.Module, x: Tensor, points: Tensor, y: Tensor) -> Tensor:
        """l1 norm (N,) of the integrated gradients of the cross-entropy from x to points (N, *), with a graph."""
        at, share = torch.tensor(gauss_legendre(self.path), dtype=x.dtype, device=x.device)  # (S,), (S,)
        line = (x + at.view(-1, *[1] * x.ndim) * (points - x)).flatten(0, 1)  # (S N, *)
        line = line if line.requires_grad else line.requires_grad_()
        with math_attention():
            values = F.cross_entropy(model(line), y.repeat(self.path), reduction="sum")
            (slope,) = torch.autograd.grad(values, line, create_graph=True)
        mean = torch.tensordot(share.to(slope.dtype), slope.reshape(self.path, *x.shape), 1)
        maps: Tensor = (points - x) * mean
        return maps.flatten(1).abs().sum(1)


@DEFENSES.register(
    "attribution_cosine",
    summary="penalty on 1 - cosine of the maps of the clean input and of an attacked one",
    reference="Wang and Kong 2022, arXiv 2205.07279",
    cost="the attack + 2 maps with a graph + 1 backward through them",
    order=2,
    norms=("linf", "l2", "l1", "l0"),
)
@dataclass(frozen=True, kw_only=True)
class AttributionCosine(Defense):
    """weight x (1 - cos(g(x), g(x'))) of the signed maps of the true class, x' from an attack on the prediction.

    A penalty: add adversarial training for the loss at x' of the paper. In training mode batch
    normalization sees the points that the attribution evaluates.

    Args:
        weight: of the penalty.
        eps: radius of the attack, in units of the inputs.
        norm: its norm.
        attribution: g.
        attack: where x' comes from.

    >>> AttributionCosine(weight=1.0, eps=0.1).attribution
    IntegratedGradients(steps=8, baseline=0.0, of='logit', chunk=1024)
    """

    weight: NotNegative
    eps: Positive
    norm: Norm = "linf"
    attribution: Attribution = IntegratedGradients(steps=8, chunk=1024)
    attack: Attack = PGD(steps=7, loss="ce")
    mixed_precision = SECOND_ORDER

    def terms(self, step: Step) -> dict[str, Tensor]:
        points = step.perturb(self.attack, self.norm, self.eps, step.y)
        both = (step.x.detach(), points)
        clean, moved = (self.attribution(step.model, p, step.y, create_graph=True) for p in both)
        return {"attribution_cosine": self.weight * MAP_LOSSES["cosine"].loss(moved, Reference(clean))}


@DEFENSES.register(
    "attribution_alignment",
    summary="adversarial training on how well the true class's gradient fits the image, and the next class's does not",
    reference="Singh et al. 2020, arXiv 1911.13073",
    cost="(steps + 1) x (1 forward + 2 backwards with a graph + 1 backward through them)",
    order=2,
    norms=("linf", "l2"),
)
@dataclass(frozen=True, kw_only=True)
class AttributionAlignment(Defense):
    """Cross-entropy at x' plus weight x log(1 + exp(d(g_y, x') - d(g_i, x'))) there, d = 1 - cosine.

    g_y and g_i are the input gradients at x' of the logits of the label and of the largest other one.
    The image is the anchor of the triplet, in units of the inputs; x' is where the triplet loss is
    largest, sought in evaluation mode. The authors scale the anchor by mean and std of the data.

    Args:
        weight: of the triplet loss, 0.5 in the authors' code.
        eps: radius of the search, in units of the inputs.
        norm: "linf" or "l2".
        steps: of the search, 3 in the authors' code.

    >>> AttributionAlignment(eps=8 / 255).steps
    3
    """

    eps: Positive
    weight: NotNegative = 0.5
    norm: _Norm = "linf"
    steps: Count = 3
    fits = True
    mixed_precision = SECOND_ORDER

    def terms(self, step: Step) -> dict[str, Tensor]:
        search = _Ascent(lambda model, x, points, y: _triplet(model, points, y)[0], self.steps)
        points = step.perturb(search, self.norm, self.eps, step.y)
        triplet, logits = _triplet(step.model, points.requires_grad_(), step.y)
        wrong = F.cross_entropy(logits, step.y, reduction="none")
        return {"adversarial": wrong, "attribution_alignment": self.weight * triplet}


def _triplet(model: nn.Module, points: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Soft-margin triplet loss (N,) and logits (N, K) at points (N, *) that require a gradient, with a graph."""
    with math_attention():
        logits = model(points)
        if y.device.type == "cpu":  # elsewhere a look waits for the device, at every step
            check_classes(y, logits.shape[1])
        other = logits.detach().scatter(1, y[:, None], -torch.inf).argmax(1)
        own, next_one = (
            torch.autograd.grad(logits.gather(1, label[:, None]).sum(), points, create_graph=True)[0]
            for label in (y, other)
        )
    apart = unit(next_one.flatten(1)) - unit(own.flatten(1))
    # Where one hidden unit decides, both gradients point one way; what rounding leaves is no direction.
    apart = torch.where(apart.abs() <= 8 * torch.finfo(apart.dtype).eps, 0.0, apart)
    # d(g_y) - d(g_i): the difference of the cosines, turned around.
    return F.softplus((apart * unit(points.flatten(1))).sum(1)), logits
