"""What an attack does to each sample: white-box, and on models that it was not made on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad.attacks import FMN, Attack, Smallest
from steadygrad.calling import logits_of
from steadygrad.classifier import predict
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.measuring.table import Array
from steadygrad.precision import widened
from steadygrad.registry import label_of
from steadygrad.threat import Threat, linf, per_sample

if TYPE_CHECKING:
    from steadygrad.measuring.runner import Tables

RECORDS: dict[str, str] = {
    "model": "name of the model under attack",
    "source": "name of the model on which the inputs were made; the same for a white-box attack",
    "sample": "stable id of the sample",
    "label": "true class",
    "clean_prediction": "class predicted for the clean input; -1 where the model gives no answer",
    "clean_confidence": "its probability",
    "attack": "label of the attack",
    "norm": "norm of the threat",
    "eps": "radius of the threat",
    "success": "the engine found an allowed wrong input (a clean mistake is one, and so is no answer)",
    "broken_by": "attack, or member of a suite, that found it; empty for clean mistakes and where nothing was found",
    "prediction": "class predicted for what was found, or for the clean input; -1 for no answer",
    "confidence": "its probability",
    "distance": "size of the change in the norm; infinite if nothing was found",
    "forwards": "forward passes spent",
    "backwards": "backward passes spent",
    "zero_gradient": "the loss had no gradient at some point of the search",
    "rounded_success": "still wrong when the input is rounded to 8 bits",
}
"""The columns of an attack's records."""


class Scaled(nn.Module):
    """A model with its logits multiplied by a constant: the same predictions, other probabilities."""

    same_inputs = True

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        return logits_of(self.model, x) * self.factor


NEAREST: Attack = Smallest()
"""The search for the smallest change, in any norm."""


@MEASURES.register(
    "attacked",
    summary="what an attack finds within a threat, or the smallest change that it finds",
    reference="Carlini et al. 2019, arXiv 1902.06705",
    cost="the passes of the attack, and three forwards",
    soundness="attack",
)
@dataclass(frozen=True)
class Attacked(Measure):
    """Attacks each sample of a model; the columns of `RECORDS`, and the adversarial inputs that are kept.

    Args:
        attack: judged by the engine.
        threat: without a radius, the smallest change is searched. Radii per sample are given as `eps`.
        scale: of the logits; another one than 1 shows what an attack owes to it.
        chunk: samples per call of the attack at most; another number shows what a result owes to its batch.
    """

    attack: Attack
    threat: Threat
    scale: float = 1.0
    chunk: int | None = None
    kept: ClassVar[tuple[str, ...]] = ("input",)

    @property
    def title(self) -> str:
        """The attack, and what is not as in the audit."""
        scaled = "" if self.scale == 1 else f" (logits x {self.scale:g})"
        chunked = "" if self.chunk is None else f" ({self.chunk} at once)"
        return f"{label_of(self.attack)}{scaled}{chunked}, {self.threat}"

    def note(self, columns: Mapping[str, Array]) -> str:
        """The share that is left."""
        return f"{100 * (1 - np.asarray(columns['success']).mean()):.1f} % left"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        x, y, seeds = batch.x, batch.y, batch.seeds
        model = models[0] if self.scale == 1 else Scaled(models[0], self.scale)
        threat = self.threat.at(batch.of("eps")) if "eps" in batch.given else self.threat
        found = self._attacked(model, x, y, threat, seeds)
        names = [*(name for name, _ in self.attack.members()), ""]
        clean = predict(model, x, seeds)
        # The attack saw the samples in other batches, where a model that depends on them may have been right.
        mistake = clean[0] != y
        inputs = torch.where(per_sample(mistake, x), x, found["inputs"])
        by = torch.where(mistake, -1, found["found_by"])
        return {
            **_judged(model, clean, inputs, y, threat, seeds),
            "success": found["success"] | mistake,
            "broken_by": np.array([names[number] for number in by.tolist()]),
            "distance": torch.where(mistake, 0.0, widened(found["distance"])),
            **{name: found[name] for name in ("forwards", "backwards", "zero_gradient")},
            "input": inputs,
        }

    def _attacked(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, seeds: Tensor) -> dict[str, Tensor]:
        parts = []
        # In two parts at least: fewer large samples than a chunk has may be here.
        size = len(x) if self.chunk is None else min(self.chunk, (len(x) + 1) // 2)
        for rows in torch.split(torch.arange(len(x)), size):
            there = rows.to(x.device)
            parts.append(self.attack(model, x[there], y[there], threat.rows(there, x), generator=seeds[rows]))
        names = ("inputs", "success", "found_by", "distance", "forwards", "backwards", "zero_gradient")
        return {name: torch.cat([getattr(part, name) for part in parts]) for name in names}


@MEASURES.register(
    "attack_points",
    summary="the inputs that an attack makes, whether they fool the model or not",
    reference="Papernot et al. 2016, arXiv 1605.07277",
    cost="the passes of the attack",
    soundness="attack",
)
@dataclass(frozen=True)
class AttackPoints(Measure):
    """Writes the raw points of an attack as `input`, to be given to measures of other models."""

    attack: Attack
    threat: Threat
    kept: ClassVar[tuple[str, ...]] = ("input",)
    titled: ClassVar[str] = "points of {attack}, {threat}"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        return {"input": self.attack.perturb(models[0], batch.x, batch.y, self.threat, generator=batch.seeds)}


def radius_leaving(tables: Tables, model: str, share: float, rows: Sequence[int]) -> float:
    """The radius (linf) within which FMN leaves a share of samples right; at most 1.

    0 where no larger share of them is right to begin with.
    """
    distance = tables.run(Attacked(FMN(), linf()), model, rows=rows)["distance"]
    return min(1.0, float(np.quantile(distance, 1 - share, method="lower")))


@MEASURES.register(
    "transferred",
    summary="what the points that an attack makes on one model do to another",
    reference="Papernot et al. 2016, arXiv 1605.07277",
    cost="the passes of the attack on the other model, and three forwards",
    soundness="attack",
)
@dataclass(frozen=True)
class Transferred(Measure):
    """Judges on the first model the raw points that the attack makes on the second, fooled there or not."""

    attack: Attack
    threat: Threat

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        x, y, (model, source) = batch.x, batch.y, models
        points = self.attack.perturb(source, x, y, self.threat, generator=batch.seeds)
        columns = _judged(model, predict(model, x, batch.seeds), points, y, self.threat, batch.seeds)
        mistake = columns["clean_prediction"] != y
        success = ((columns["prediction"] != y) & self.threat.allows(x, points)) | mistake
        distance = torch.where(mistake, 0.0, widened(self.threat.distance(points - x)))
        name = label_of(self.attack)
        return {
            **columns,
            "success": success,
            "broken_by": np.array([name if broken else "" for broken in (success & ~mistake).tolist()]),
            "distance": torch.where(success, distance, torch.inf),
            # The passes were spent on the other model.
            "forwards": torch.zeros_like(y),
            "backwards": torch.zeros_like(y),
            "zero_gradient": torch.zeros_like(success),
        }


def _judged(
    model: nn.Module, clean: tuple[Tensor, Tensor], points: Tensor, y: Tensor, threat: Threat, seeds: Tensor
) -> dict[str, Tensor]:
    """Predictions for clean inputs and points, and the radius, which is NaN in a search for the smallest change."""
    low, high = threat.bounds
    rounded = low + (high - low) * ((points - low) / (high - low) * 255).round() / 255
    found, coarse = (predict(model, inputs, seeds) for inputs in (points, rounded))
    return {
        "clean_prediction": clean[0],
        "clean_confidence": clean[1],
        "prediction": found[0],
        "confidence": found[1],
        "rounded_success": coarse[0] != y,
        "eps": _radii(threat).expand(len(y)),
    }


def _radii(threat: Threat) -> Tensor:
    """One radius or one per sample, NaN in a search for the smallest change."""
    eps = torch.nan if threat.eps is None else threat.eps
    return eps.cpu().double() if isinstance(eps, Tensor) else torch.tensor(eps, dtype=torch.float64)
