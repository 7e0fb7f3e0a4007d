"""The worst a suite of attacks does to the maps of a batch: what an audit of explanations records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.arguments import Classes, Inputs, public
from steadygrad.attacks.maps.attribution_attacks import IFIA, AttributionPGD, ExplanationAttack
from steadygrad.attacks.maps.map_run import AttributionResult
from steadygrad.attributions import Attribution
from steadygrad.attributions.similarity import SIMILARITIES
from steadygrad.classifier import check_inputs
from steadygrad.errors import UsageError, one_of
from steadygrad.threat import Threat


@dataclass(frozen=True)
class WorstSimilarity:
    """The least similar maps that a suite of attacks found, per sample, with unchanged predictions."""

    attacks: tuple[ExplanationAttack, ...]
    worst: Mapping[str, Tensor]  # similarity name -> (N,), the least similar over the attacks and what is beside them
    noise: Mapping[str, Tensor]  # the same over the random points beside them
    by: Mapping[str, Tensor]  # similarity name -> (N,) number of the attack that was worst, or was beside what was
    results: tuple[AttributionResult, ...]  # of each attack
    at: Mapping[str, Tensor]  # similarity name -> (N,) which of the results and then of their baselines was worst

    def example(self, name: str, sample: int) -> tuple[Tensor, Tensor, Tensor]:
        """Changed input, clean map and changed map of one sample, where a similarity is worst."""
        result = both(self.results)[int(self.at[name][sample])]
        return result.inputs[sample], result.clean_maps[sample], result.maps[sample]


def both(results: Sequence[AttributionResult]) -> list[AttributionResult]:
    """What attacks found, and after that what their baselines did."""
    return [*results, *(result.noise for result in results if result.noise is not None)]


@public
def explanation_suite(
    attribution: Attribution,
    *,
    k: float = 0.1,
    steps: int = 40,
    restarts: int = 3,
    noise_draws: int = 10,
    pictures: bool = True,
) -> tuple[ExplanationAttack, ...]:
    """Attacks on the top k, the center of mass (of pictures) and the direction of the map.

    >>> from steadygrad.attributions import Saliency
    >>> [attack.objective for attack in explanation_suite(Saliency())]
    ['top-k', 'mass-center', 'cosine']
    """
    common: dict[str, Any] = {"steps": steps, "restarts": restarts, "noise_draws": noise_draws}
    top = IFIA(attribution, goal="top-k", k=k, **common)
    center = IFIA(attribution, goal="mass-center", **common)
    angle = AttributionPGD(attribution, distance="cosine", **common)
    return (top, center, angle) if pictures else (top, angle)


@public
def worst_similarity(
    model: nn.Module,
    x: Inputs,
    target: Classes | None,
    threat: Threat,
    attribution: Attribution,
    *,
    attacks: Sequence[ExplanationAttack] | None = None,
    similarities: Sequence[str] = ("top_k_intersection", "kendall", "cosine"),
    generator: randomness.Seeds = None,
) -> WorstSimilarity:
    """How unlike the clean map an allowed input of the same prediction can make it, per sample.

    The maps compared are those of the model itself; the attacks follow one with kinks through smooth ones.

    Args:
        target: classes (N,) to explain; None means the predicted ones.
        threat: linf or l2, with a radius.
        attacks: a suite on this attribution, with baselines; default `explanation_suite`.
        similarities: names in `similarity.SIMILARITIES`.

    Raises:
        UsageError: unknown similarities, attacks on another attribution or without a baseline; as for
            the attacks.

    >>> from steadygrad.attributions import Saliency
    >>> from steadygrad.threat import linf
    >>> model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> found = worst_similarity(model, torch.rand(4, 6), None, linf(0.1), Saliency())
    >>> bool((found.worst["cosine"] <= 1).all())
    True
    """
    for name in similarities:
        one_of("similarity", name, SIMILARITIES)
    if attacks is None:
        check_inputs(x, None, threat.bounds)
        attacks = explanation_suite(attribution, pictures=x.ndim in (3, 4))
    if not attacks or any(attack.attribution != attribution or attack.noise is None for attack in attacks):
        raise UsageError("attacks must be at least one attack on the given attribution, each with noise_draws above 0")
    seeds = randomness.sample_seeds(len(x), generator)
    results = tuple(attack(model, x, target, threat, generator=seeds) for attack in attacks)
    worst, noise, by, at = {}, {}, {}, {}
    for name in similarities:
        row = SIMILARITIES[name]
        sign = 1 if row.higher_is_more_similar else -1
        each = sign * torch.stack([result.similarity(row.function) for result in both(results)])
        least = each.min(0)
        worst[name], at[name], by[name] = sign * least.values, least.indices, least.indices % len(results)
        noise[name] = sign * each[len(results) :].amin(0)
    return WorstSimilarity(tuple(attacks), worst, noise, by, results, at)
