"""What an audit finds for one model: its entry in `summary.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from steadygrad.attacks import Attack, Expectation, Standard
from steadygrad.attributions import Attribution
from steadygrad.evaluation.curves import curve, curve_points
from steadygrad.evaluation.distances import distances
from steadygrad.evaluation.explanations import explanation_stability, gradient_norms
from steadygrad.evaluation.records import Records, robust_accuracy
from steadygrad.evaluation.rho import relative
from steadygrad.evaluation.robustness import Bench, label_of, weights_key
from steadygrad.evaluation.statistics import Estimate, quantiles, wilson
from steadygrad.evaluation.validity import checked
from steadygrad.evaluation.verdict import attack_verdict
from steadygrad.registry import describe
from steadygrad.threat import Threat

__all__ = ["Entry"]

DISTRIBUTIONS = ("gradient_norms", "next_gradient_norms", "confidence_clean", "confidence_adversarial")


@dataclass
class Entry:
    """The audit of one model."""

    bench: Bench
    name: str
    model: nn.Module
    suite: tuple[Attack, ...]
    threat: Threat
    checked: int
    grid: Sequence[float]
    attributions: Sequence[Attribution]
    center: Tensor | None = None

    def __post_init__(self) -> None:
        self.records = Records.join(self.bench.run(self.model, self.name, a, self.threat) for a in self.suite)

    def summary(self, arrays: dict[str, Any], index: int) -> dict[str, Any]:
        """The model's entry; distributions go into the arrays of the gallery."""
        lead, eps = self.suite[0], float(self.threat.eps)  # type: ignore[arg-type]
        bench = self.bench
        mine = self.records.where(attack=label_of(lead)).frame
        right = mine["clean_prediction"] == mine["label"]
        radii = [eps * g for g in self.grid]
        searched = curve(bench, self.model, self.name, lead, self.threat, radii, self.records)
        worst = self._worst(searched, eps)
        fallen = set(self.records.frame.loc[self.records.frame["success"], "sample"])
        checks = checked(bench, self.model, self.name, lead, self.threat, self.checked, fallen)
        points = curve_points(searched, radii)
        norms, others = (t.numpy() for t in gradient_norms(bench, self.model))
        before, after = mine["clean_confidence"].to_numpy(), mine["confidence"].to_numpy()
        for kind, values in zip(DISTRIBUTIONS, (norms, others, before, after), strict=True):
            arrays[f"{kind}_{index}"] = values.astype(np.float32)
        near = distances(bench, self.model, self.name, self.threat, self.checked, self.records + searched)
        score = relative(bench, self.model, self.name, center=self.center)
        stability = explanation_stability(bench, self.model, self.attributions, lead, self.threat)
        return {
            "name": self.name,
            "architecture": getattr(_inner(self.model), "architecture", None),
            "draws": self.model.passes if isinstance(self.model, Expectation) else 1,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "weights": weights_key(self.model),
            "samples": len(mine),
            "clean": wilson(int(right.sum()), len(mine)).plain(),
            "robust": worst.plain(),
            "verdict": checks.plain(),
            "eligibility": checks.eligibility(),
            "attacks": [self._attack(a, worst.value) for a in self.suite],
            "broken_by": self._broken_by(),
            "curve": {"attack": label_of(lead), "points": [{"eps": e, "accuracy": a.plain()} for e, a in points]},
            "distances": near.plain(),
            "rho2": score.plain(),
            "gradient_norm": {"quantiles": quantiles(norms), "next_class": quantiles(others)},
            "confidence": {"clean": quantiles(before), "adversarial": quantiles(after)},
            "explanations": [s.plain() for s in stability],
        }

    def _worst(self, searched: Records, eps: float) -> Estimate:
        """Share of samples that neither the suite nor the search of the curve changed within eps."""
        suite = robust_accuracy(self.records)
        fell = set(self.records.frame.loc[self.records.frame["success"], "sample"])
        fell |= set(searched.frame.loc[searched.frame["eps"] <= eps * (1 + 1e-9), "sample"])
        return wilson(suite.count - len(fell), suite.count)

    def _broken_by(self) -> list[dict[str, Any]]:
        """How many samples each attack, or each member of a suite, broke, and how many nothing else did."""
        frame = self.records.frame
        broken = frame[frame["broken_by"] != ""]
        attacks = broken.groupby("sample")["attack"].nunique()
        alone = broken["sample"].map(attacks) == 1
        rows = []
        for attack in self.suite:
            mine = broken["attack"] == label_of(attack)
            members = [name for name, _ in attack.members()] if isinstance(attack, Standard) else [label_of(attack)]
            for member in members:
                hit = mine & (broken["broken_by"] == member)
                counts = {"samples": int(hit.sum()), "alone": int((hit & alone).sum())}
                named = member if isinstance(attack, Standard) else None
                rows.append({"attack": label_of(attack), "member": named, **counts})
        return rows

    def _attack(self, attack: Attack, worst: float) -> dict[str, Any]:
        records = self.records.where(attack=label_of(attack))
        frame = records.frame
        rate = records.success_rate()
        # The last member of a standard suite needs no gradient.
        needs = not isinstance(attack, Standard)
        judged = attack_verdict(records, worst, getattr(attack, "steps", 1) > 1, needs)
        described = describe(attack)
        return {
            "name": described.pop("name"),
            "label": label_of(attack),
            "settings": described,
            "accuracy": records.accuracy().plain(),
            "success_rate": rate.plain() if rate is not None else None,
            "after_rounding": records.accuracy("rounded_success").plain(),
            "zero_gradient": float(frame["zero_gradient"].mean()),
            "forwards": float(frame["forwards"].mean()),
            "backwards": float(frame["backwards"].mean()),
            "median_distance": quantiles(frame["distance"], at=(0.5,))["0.5"],
            "verdict": {"trustworthy": judged.trustworthy, "text": judged.text},
        }


def _inner(model: nn.Module) -> nn.Module:
    return model.model if isinstance(model, Expectation) else model
