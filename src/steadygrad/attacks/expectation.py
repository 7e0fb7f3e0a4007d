"""Models that draw random numbers: told apart from deterministic ones, and attacked on average."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.arguments import Inputs, public
from steadygrad.calling import logits_of
from steadygrad.classifier import check_inputs, frozen
from steadygrad.randomized_smoothing import SmoothedModel
from steadygrad.values import Count, Limit

Calls = Annotated[int, Limit("at least 2", lambda value: value >= 2)]
DRAWS = 16
"""Draws over which the predictions of a randomized model are averaged."""


class Expectation(nn.Module):
    """The mean of the logits of a randomized model over several draws: expectation over transformations.

    An attack on it follows the mean gradient, and a point counts as wrong where the mean prediction
    is. Single draws neither lead the attack astray nor save or condemn a sample. Within an attack the
    draws follow from its seeds; each call costs `draws` calls of the model.

    Source: Athalye, Carlini and Wagner 2018, arXiv 1802.00420, section 4.2.

    >>> Expectation(nn.Linear(2, 3), draws=4)(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """

    same_inputs = True

    @public
    def __init__(self, model: nn.Module, draws: Count = DRAWS) -> None:
        super().__init__()
        self.model, self.passes = model, draws

    def forward(self, x: Tensor) -> Tensor:
        """Mean logits (N, K) at inputs (N, *)."""
        total = logits_of(self.model, x)
        for _ in range(self.passes - 1):
            total = total + logits_of(self.model, x)
        return total / self.passes


@public
def is_deterministic(model: nn.Module, x: Inputs, *, calls: Calls = 3) -> bool:
    """Whether the model, in evaluation mode, gives the same logits for the same batch (N, *) each time.

    Differences within the rounding of the arithmetic are none.

    >>> is_deterministic(nn.Linear(2, 3), torch.zeros(5, 2))
    True
    """
    check_inputs(x, None, (-torch.inf, torch.inf))
    with frozen(model, randomness.sample_seeds(1, None)) as model, torch.no_grad():
        first, *others = [model(x) for _ in range(calls)]
    room = 64 * torch.finfo(first.dtype).eps * float(first.abs().max().clamp_min(1e-30))
    return all(float((first - other).abs().max()) <= room for other in others)


@public
def expected(model: nn.Module, x: Inputs, draws: Count = DRAWS) -> nn.Module:
    """The model itself, or if it answers the same inputs x (N, *) differently, its mean over draws."""
    return model if is_deterministic(model, x) else Expectation(model, draws)


def draws_of(model: nn.Module) -> int:
    """How many draws of a randomized model a call averages: 1 unless it is an expectation."""
    return model.passes if isinstance(model, Expectation) else 1


def base_of(model: nn.Module) -> nn.Module:
    """The model inside an expectation; any other model itself."""
    return model.model if isinstance(model, Expectation) else model


def network_of(model: nn.Module) -> tuple[nn.Module, int]:
    """The network inside what averages it, and how many passes through it a call takes; any other model, and 1."""
    inner, passes = base_of(model), draws_of(model)
    return (inner.model, passes * inner.smoothing.draws) if isinstance(inner, SmoothedModel) else (inner, passes)
