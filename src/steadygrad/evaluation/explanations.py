"""How much explanations move when the input does: similarity of maps before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.attacks import Attack, RandomNoise
from steadygrad.attributions import Attribution, similarity
from steadygrad.derivatives import gradient
from steadygrad.evaluation.robustness import Bench, label_of, predict
from steadygrad.measuring.statistics import Estimate, mean
from steadygrad.threat import Threat

__all__ = ["Stability", "explanation_stability", "gradient_norms"]

MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "top-10 % intersection": similarity.top_k_intersection,
    "Kendall tau-b": similarity.kendall,
}


@dataclass(frozen=True)
class Stability:
    """Mean similarity of the maps of clean and changed inputs, of the class predicted when clean."""

    attribution: str
    under: str
    measure: str
    similarity: Estimate

    def plain(self) -> dict[str, Any]:
        """The row as plain data for `summary.json`."""
        e = self.similarity
        names = {"attribution": self.attribution, "under": self.under, "measure": self.measure}
        return {**names, "mean": e.value, "low": e.low, "high": e.high, "count": e.count}


def explanation_stability(
    bench: Bench,
    model: nn.Module,
    attributions: Sequence[Attribution],
    attack: Attack,
    threat: Threat,
    count: int = 100,
) -> list[Stability]:
    """Similarity of maps under random noise of the threat and under the attack on the prediction.

    Both change the input by as much as the threat allows. The attack was not made to move the
    explanation, so this is no worst case; noise is the baseline that it should be compared with.
    """
    ways: dict[str, Attack] = {"random noise": RandomNoise(), "attack on the prediction": attack}
    values: dict[tuple[str, str, str], list[Tensor]] = {}
    generator = randomness.fresh(bench.seed)
    for x, y, _ in bench.batches(0, count):
        seeds = randomness.sample_seeds(len(x), generator)
        target = predict(model, x)[0]
        for under, way in ways.items():
            points = way.perturb(model, x, y, threat, generator=seeds)
            for attribution in attributions:
                before, after = attribution(model, x, target), attribution(model, points, target)
                for measure, function in MEASURES.items():
                    values.setdefault((label_of(attribution), under, measure), []).append(function(before, after))
    return [Stability(*names, mean(torch.cat(parts).cpu().double().numpy())) for names, parts in values.items()]


def gradient_norms(bench: Bench, model: nn.Module) -> tuple[Tensor, Tensor]:
    """l2 norms (N,) of the cross-entropy's input gradient for the label, and for the class after it."""
    from steadygrad.attacks.losses import cross_entropy
    from steadygrad.classifier import frozen

    columns: list[list[Tensor]] = [[], []]
    for x, y, _ in bench.batches():
        with frozen(model):
            classes = model(x[:1]).shape[1]
            for column, labels in zip(columns, (y, (y + 1) % classes), strict=True):
                _, slope = gradient(lambda inputs, t=labels: cross_entropy(model(inputs), t), x)  # type: ignore[misc]
                column.append(torch.linalg.vector_norm(slope.flatten(1), dim=1).cpu())
    return torch.cat(columns[0]), torch.cat(columns[1])
