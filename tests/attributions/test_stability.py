"""Max-sensitivity and local Lipschitz estimates: against loops, per sample, honest about what they are."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
from steadygrad import randomness
from steadygrad.attributions import InputXGradient, IntegratedGradients, Saliency
from steadygrad.attributions.stability import StabilityEstimate, local_lipschitz, max_sensitivity
from steadygrad.errors import UsageError
from steadygrad.threat import Threat, l2, linf

TARGET = torch.tensor([0, 2, 1])
FUNCTIONS = [max_sensitivity, local_lipschitz]


def _norm(values: Tensor) -> float:
    return math.sqrt(sum(v * v for v in values.flatten().tolist()))


@pytest.mark.parametrize("threat", [linf(0.1), l2(0.5)], ids=str)
def test_the_estimates_equal_their_formulas(threat: Threat) -> None:
    model, x = nets.build("conv", dtype=torch.float64), nets.inputs(3, dtype=torch.float64)
    method, seeds = Saliency(), randomness.sample_seeds(3, randomness.fresh(4))
    found = [
        max_sensitivity(method, model, x, TARGET, threat, draws=3, generator=seeds),
        max_sensitivity(method, model, x, TARGET, threat, draws=3, relative=False, generator=seeds),
        local_lipschitz(method, model, x, TARGET, threat, draws=3, generator=seeds),
    ]
    for n in range(3):
        own, target = x[n : n + 1], TARGET[n : n + 1]
        clean = method(model, own, target)
        values: list[list[float]] = [[], [], []]
        for draw in range(3):
            point = threat.random(own, seeds[n : n + 1], draw)
            moved = _norm(method(model, point, target) - clean)
            for row, value in zip(values, (moved / _norm(clean), moved, moved / _norm(point - own))):
                row.append(value)
        for estimate, row in zip(found, values):
            assert estimate.value[n].item() == pytest.approx(max(row), rel=1e-9)
            assert max(row) > 1.01 * min(row), "the draws must differ"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_sample_does_not_depend_on_its_batch(function: Callable[..., StabilityEstimate]) -> None:
    model, x, index = nets.build("residual"), nets.inputs(3), torch.arange(3)

    def call(x: Tensor, target: Tensor, index: Tensor) -> Tensor:
        return function(
            IntegratedGradients(3), model, x, target, linf(0.1), draws=2, generator=gates.generator_at(index)
        ).value

    gates.assert_batch_invariant(call, x, TARGET, index, rtol=1e-3)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nothing_is_left_behind(function: Callable[..., StabilityEstimate]) -> None:
    model, x = nets.build("attention"), nets.inputs(3)
    gates.assert_leaves_no_trace(
        model, lambda: function(Saliency(), model, x, TARGET, linf(0.1), draws=2), inputs=[x], failing_at=(0, 1)
    )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_more_draws_can_only_raise_it_and_it_says_what_it_is(function: Callable[..., StabilityEstimate]) -> None:
    model, x = nets.build("conv"), nets.inputs(3)
    few, many = (function(Saliency(), model, x, TARGET, linf(0.1), draws=d) for d in (1, 8))
    assert bool((many.value >= few.value).all())
    assert bool((many.value > few.value).any())
    assert (many.draws, many.soundness) == (8, "estimate")


def test_zero_maps_have_a_stated_value() -> None:
    class Half(nn.Module):
        """Logits that depend on the second entry where the first is over a half."""

        def forward(self, x: Tensor) -> Tensor:
            out = x[:, 1] * (x[:, 0] - 0.5).clamp_min(0)
            return torch.stack([out, out * 0], 1)

    x, target = torch.tensor([[0.45, 0.5], [0.2, 0.5]]), torch.tensor([0, 0])
    value = max_sensitivity(Saliency(), Half(), x, target, linf(0.1)).value
    assert value.tolist() == [math.inf, 0.0]
    assert local_lipschitz(InputXGradient(), Half(), x, target, linf(0.1)).value[1] == 0


def test_wrong_arguments_are_refused() -> None:
    model, x = nets.build("conv"), nets.inputs(3)
    with pytest.raises(UsageError, match="draws must be at least 1"):
        max_sensitivity(Saliency(), model, x, TARGET, linf(0.1), draws=0)
    with pytest.raises(UsageError, match="no radius"):
        local_lipschitz(Saliency(), model, x, TARGET, linf())
