"""DeepFool's change as a differentiable function of the weights, and its relative size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from steadygrad.derivatives import math_attention
from steadygrad.errors import UsageError, at_least_one
from steadygrad.threat import per_sample


class Changed(NamedTuple):
    """The change (N, *), and which inputs (N,) are predicted as labeled before it."""

    change: Tensor
    right: Tensor


def deepfool_change(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    reach: bool = False,
    steps: int = 5,
    overshoot: float = 0.02,
    candidates: int | None = 3,
    create_graph: bool = False,
) -> Changed:
    """The l2 change (N, *) with which DeepFool leads inputs (N, *) away from their labels, fooled or not.

    The bounds of the inputs take no part, as in the paper. With create_graph the change can be differentiated
    with respect to the weights, through all steps. The nearest boundary is chosen by first derivatives alone,
    and second-order work goes through the one chosen difference of logits: the choice is piecewise constant, so
    the derivative is that of the version for all classes. The model is used in the mode it is in.

    Source: Moosavi-Dezfooli et al. 2016, algorithm 2; the derivative is Yan et al. 2018, section 3.3.

    Args:
        labels: (N,) the labels to leave; a sample rests once its prediction is another.
        reach: lead samples that are wrong from the start toward their label: the boundary to that class
            is the only one that counts, and they rest once it is predicted. Without it they do not move.
        steps, overshoot, candidates: as for `DeepFool`; None considers all classes.

    >>> model = nn.Linear(2, 2)
    >>> deepfool_change(model, torch.rand(3, 2), torch.zeros(3, dtype=torch.int64)).change.shape
    torch.Size([3, 2])
    """
    at_least_one(steps=steps, candidates=1 if candidates is None else candidates)
    active = torch.arange(len(x), device=x.device)
    right = torch.ones(len(x), dtype=torch.bool, device=x.device)
    total = torch.zeros_like(x)
    with torch.enable_grad(), math_attention():
        for index in range(steps):
            points = x[active].detach() + (1 + overshoot) * total[active]
            if index:
                # A look without a graph, so that samples at rest take no part in the costly passes.
                with torch.no_grad():
                    fits = model(points).argmax(1) == labels[active]
                standing = (fits == right[active]) & (right[active] | reach)
                active, points = active[standing], points[standing]
                if not len(active):
                    break
            points = points if points.requires_grad else points.requires_grad_()
            logits = model(points)
            if logits.shape[1] < 2:
                raise UsageError(f"the model must return logits (N, K) with K of at least 2, got {tuple(logits.shape)}")
            if not index:
                right = logits.detach().argmax(1) == labels
            step = _step(points, logits, labels[active], right[active], candidates, create_graph)
            moves = per_sample(right[active] | reach, x)
            total = total.index_add(0, active, torch.where(moves, step, 0.0).to(total.dtype))
            total = total if create_graph else total.detach()
    return Changed((1 + overshoot) * total, right)


def _step(
    points: Tensor, logits: Tensor, labels: Tensor, away: Tensor, candidates: int | None, create_graph: bool
) -> Tensor:
    """The change (A, *) onto the nearest linearized boundary: |gap| w / |w|^2 with w the slope of the gap."""
    # Away from the label to the nearest class, or toward the label from whichever class is predicted now.
    own = torch.where(away, labels, logits.detach().argmax(1))
    rival = torch.where(away, _nearest(points, logits, labels, candidates), labels) if bool(away.any()) else labels
    gap = (logits.gather(1, rival[:, None]) - logits.gather(1, own[:, None])).squeeze(1)
    (slope,) = torch.autograd.grad(gap.sum(), points, create_graph=create_graph, retain_graph=create_graph)
    square = slope.flatten(1).square().sum(1)
    flat = square == 0  # no way leads out of a flat region
    length = torch.where(flat, 0.0, gap.abs() / torch.where(flat, 1.0, square))
    return per_sample(length, points) * slope


def _nearest(points: Tensor, logits: Tensor, labels: Tensor, candidates: int | None) -> Tensor:
    """The class (A,) whose linearized boundary is nearest, by first derivatives."""
    values = logits.detach()
    count = min(candidates or values.shape[1], values.shape[1] - 1)
    rivals = values.scatter(1, labels[:, None], -torch.inf).topk(count, dim=1).indices  # (A, C)
    if count == 1:
        return rivals[:, 0]
    distances = []
    for rival in rivals.unbind(1):
        gap = (logits.gather(1, rival[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)
        (slope,) = torch.autograd.grad(gap.sum(), points, retain_graph=True)
        size = torch.linalg.vector_norm(slope.flatten(1), dim=1)
        distances.append(torch.where(size > 0, gap.detach().abs() / size, torch.inf))
    return rivals.gather(1, torch.stack(distances, 1).argmin(1, keepdim=True)).squeeze(1)


def relative_distance(change: Tensor, x: Tensor, center: Tensor | float = 0.0) -> Tensor:
    """The l2 norm of changes (N, *) by that of inputs (N, *) less a center; zero for inputs at the center.

    >>> relative_distance(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 10.0]]))
    tensor([0.5000])
    """
    size = torch.linalg.vector_norm((x - center).flatten(1), dim=1)
    norm = torch.linalg.vector_norm(change.flatten(1), dim=1)
    return torch.where(size > 0, norm / torch.where(size > 0, size, 1.0), 0.0)
