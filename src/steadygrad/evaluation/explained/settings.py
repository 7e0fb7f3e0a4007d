"""What an audit of explanations may cost, which attacks it runs, and on what."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad.attacks import AttributionPGD, ExplanationAttack, explanation_suite
from steadygrad.attributions import Attribution
from steadygrad.attributions.similarity import SIMILARITIES
from steadygrad.classifier import frozen
from steadygrad.derivatives import smooth
from steadygrad.errors import UsageError
from steadygrad.threat import Threat

__all__ = ["Explaining", "K", "attacks_on", "measures", "subject_of"]

K = 0.1
"""The share of the pixels that count as the top, the default of the similarities."""
_SIMILAR = ("top_k_intersection", "kendall", "cosine", "mass_center_displacement")


@dataclass(frozen=True)
class Explaining:
    """What an audit of explanations may cost, and what it assumes.

    Args:
        samples: the first so many samples of the data.
        certified: of these, the first so many get certified bounds too, which cost most.
        eps: the radius of the changes; None for that of the audit.
        steps, restarts: of each attack.
        draws: random points beside each attack.
        beta: of the softplus that stands in for the rectifiers of a network.

    >>> Explaining(samples=10).steps
    20
    """

    samples: int = 20
    certified: int = 10
    eps: float | None = None
    steps: int = 20
    restarts: int = 2
    draws: int = 10
    beta: float = 50.0

    def __post_init__(self) -> None:
        for name in ("samples", "steps", "restarts", "draws"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} of explanations must be at least 1, got {getattr(self, name)}")
        if self.certified < 0:
            raise UsageError(f"certified samples of explanations must be at least 0, got {self.certified}")
        for name in ("eps", "beta"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name} of explanations must be positive and finite, got {value}")

    def within(self, threat: Threat) -> Threat:
        """The threat of the explanations, from that of the audit."""
        if threat.norm not in ("linf", "l2"):
            raise UsageError(f"explanations are attacked and bounded within linf or l2, not within {threat.norm}")
        return threat if self.eps is None else threat.at(self.eps)


def attacks_on(attribution: Attribution, settings: Explaining, pictures: bool) -> tuple[ExplanationAttack, ...]:
    """The suite against an attribution: top k, center of mass (of pictures), cosine, Euclidean distance."""
    steps, restarts, draws = settings.steps, settings.restarts, settings.draws
    suite = explanation_suite(attribution, k=K, steps=steps, restarts=restarts, noise_draws=draws, pictures=pictures)
    return (*suite, AttributionPGD(attribution, steps=steps, restarts=restarts, noise_draws=draws))


def measures(pictures: bool) -> list[str]:
    """Names of the similarities that are measured; place counts for pictures only."""
    return [name for name in _SIMILAR if pictures or not SIMILARITIES[name].needs_place]


def subject_of(model: nn.Module, x: Tensor, seeds: Tensor, beta: float) -> nn.Module:
    """The model whose maps are pushed: the model itself, or its softplus surrogate if it has rectifiers.

    Maps of a piecewise linear network have no derivative to follow and no tangent to bound.
    """
    surrogate = smooth(model, beta)
    logits = []
    for one in (model, surrogate):
        with frozen(one, seeds), torch.no_grad():
            logits.append(one(x))
    return model if torch.equal(*logits) else surrogate
