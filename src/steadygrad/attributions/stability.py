"""How much maps move under random changes of the input: estimates, per sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.arguments import Classes, Inputs, public
from steadygrad.attributions.attribution import Attribution
from steadygrad.errors import at_least_one
from steadygrad.threat import Threat


@dataclass(frozen=True)
class StabilityEstimate:
    """The largest `value` (N,) over `draws` random points per sample: no bound, more points can only raise it."""

    value: Tensor
    draws: int
    soundness: str = "estimate"


@public
def max_sensitivity(
    attribution: Attribution,
    model: nn.Module,
    x: Inputs,
    target: Classes,
    threat: Threat,
    *,
    draws: int = 10,
    relative: bool = True,
    generator: randomness.Seeds = None,
) -> StabilityEstimate:
    """Largest l2 distance of the maps of random points of the threat from the clean map; maps are signed.

    Costs 1 + draws maps per sample; leaves no trace. Raises as the attribution does, and for a threat without
    a radius.

    Args:
        target: classes (N,) to explain.
        draws: random points per sample.
        relative: in units of the clean map's l2 norm (infinite where only that map is zero); otherwise
            in units of the maps.

    Source: Yeh et al. 2019, arXiv:1901.09392, definition 2.

    >>> from steadygrad.attributions import Saliency
    >>> from steadygrad.threat import linf
    >>> max_sensitivity(Saliency(), nn.Linear(4, 2), torch.rand(3, 4), torch.tensor([0, 1, 0]), linf(0.1)).value
    tensor([0., 0., 0.])
    """

    def ratio(far: Tensor, clean: Tensor, _: Tensor) -> Tensor:
        return _over(far, clean) if relative else far

    return _largest(attribution, model, x, target, threat, draws, generator, ratio)


@public
def local_lipschitz(
    attribution: Attribution,
    model: nn.Module,
    x: Inputs,
    target: Classes,
    threat: Threat,
    *,
    draws: int = 10,
    generator: randomness.Seeds = None,
) -> StabilityEstimate:
    """Largest ratio of the l2 distance of the maps to that of the inputs, over random allowed points.

    Arguments, errors and costs as for `max_sensitivity`.

    Source: Alvarez-Melis and Jaakkola 2018, arXiv:1806.07538, equation 6.

    >>> from steadygrad.attributions import InputXGradient
    >>> from steadygrad.threat import l2
    >>> model = nn.Linear(1, 2)
    >>> value = local_lipschitz(InputXGradient(), model, torch.rand(3, 1), torch.tensor([0, 1, 0]), l2(0.1)).value
    >>> torch.allclose(value, model.weight[[0, 1, 0], 0].abs(), rtol=1e-3)
    True
    """
    return _largest(attribution, model, x, target, threat, draws, generator, lambda far, _, change: _over(far, change))


def _largest(
    attribution: Attribution,
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    threat: Threat,
    draws: int,
    generator: randomness.Seeds,
    ratio: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> StabilityEstimate:
    """The largest ratio of the distance of two maps, the size of the clean one and that of the change, all (N,)."""
    at_least_one(draws=draws)
    x = x.detach()
    threat.radius(x)  # refuses a threat without one
    clean = attribution(model, x, target)
    seeds = randomness.sample_seeds(len(x), generator)
    value = torch.zeros(len(x), dtype=clean.dtype, device=clean.device)
    for draw in range(draws):
        points = threat.random(x, seeds, draw)
        far = _size(attribution(model, points, target) - clean)
        value = torch.maximum(value, ratio(far, _size(clean), _size(points - x)))
    return StabilityEstimate(value, draws)


def _size(values: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return size


def _over(change: Tensor, size: Tensor) -> Tensor:
    # No change is none, whatever it is compared with.
    return torch.where(change == 0, 0.0, change / size)
