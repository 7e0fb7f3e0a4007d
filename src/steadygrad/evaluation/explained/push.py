"""One attribution of one model pushed on the first samples of a bench, in cells that outlive a kill."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from steadygrad import progress
from steadygrad.attributions import Attribution
from steadygrad.evaluation.columns import Columns, cell
from steadygrad.evaluation.explained.measured import measure
from steadygrad.evaluation.explained.settings import Explaining, attacks_on
from steadygrad.evaluation.robustness import Bench, code_key, weights_key
from steadygrad.files import key
from steadygrad.registry import describe, label_of
from steadygrad.threat import Threat

__all__ = ["PICTURES", "Push"]

CHUNK = 10
"""Samples per cell: what a killed run loses at most."""
PICTURES = ("shown", "map_clean", "map_shown", "marks", "salience")
"""Columns with more than a number per sample, kept for the samples that are shown."""


@dataclass(frozen=True)
class Push:
    """One attribution of one model, whose maps (or whose surrogate's: the subject) are pushed."""

    bench: Bench
    name: str
    model: nn.Module
    subject: nn.Module
    attribution: Attribution
    threat: Threat
    settings: Explaining
    pictures: int

    def columns(self, count: int) -> Columns:
        """Everything measured on the first `count` samples; the first `pictures` keep their pictures."""
        folder, bench = self.bench.cells.folder, self.bench
        cost = {name: getattr(self.settings, name) for name in ("steps", "restarts", "draws", "beta")}
        base: list[Any] = [
            "explained",
            weights_key(self.model),
            describe(self.attribution),
            str(self.threat._key()),
            cost,
        ]
        base += [bench.data.fingerprint, bench.seed, torch.device(bench.device).type, code_key()]
        parts = []
        with progress.task(f"{self.name}: pushing {label_of(self.attribution)}, {self.threat}", count) as advance:
            for start in range(0, count, CHUNK):
                stop = min(start + CHUNK, count)
                shown, certify = (max(0, min(n, stop) - start) for n in (self.pictures, self.settings.certified))
                name = key(base, start, stop, shown, certify)
                parts.append(cell(folder, name, functools.partial(self._compute, start, stop, shown, certify)))
                advance(stop - start)
        return _joined(parts, count)

    def _compute(self, start: int, stop: int, shown: int, certify: int) -> Columns:
        parts = []
        for x, _, ids in self.bench.batches(start, stop):
            seeds, mine = self.bench.seeds({"explained": describe(self.attribution)}, ids), min(certify, len(x))
            certify -= mine
            parts.append(
                measure(self.model, self.subject, self.attribution, x, self.threat, self.settings, seeds, mine)
            )
        joined = _joined(parts, stop - start)
        return {name: values[:shown] if name in PICTURES else values for name, values in joined.items()}

    def records(self, columns: Columns) -> list[dict[str, Any]]:
        """One row per sample."""
        run = {"norm": self.threat.norm, "eps": self.threat.eps, "seed": self.bench.seed}
        scalars = {name: values.tolist() for name, values in columns.items() if name not in PICTURES}
        count = len(next(iter(scalars.values())))
        return [
            {"model": self.name, "attribution": label_of(self.attribution), "sample": self.bench.data.ids[i], **run}
            | {name: values[i] for name, values in scalars.items()}
            for i in range(count)
        ]

    def captions(self, columns: Columns) -> list[dict[str, Any]]:
        """What is said about the samples that are shown."""
        data = self.bench.data
        goals = [attack.objective for attack in attacks_on(self.attribution, self.settings, len(data.shape) > 1)]
        return [
            {
                "index": i,
                "id": data.ids[i],
                "label": data.classes[int(data.labels[i])],
                "prediction": data.classes[int(columns["prediction"][i])],
                "clean_confidence": float(columns["confidence"][i]),
                "adversarial_confidence": float(columns["shown_confidence"][i]),
                "certain": None if math.isnan(columns["certain"][i]) else int(columns["certain"][i]),
                "goal": goals[int(columns["by"][i])],
            }
            for i in range(len(columns["marks"]))
        ]


def _joined(parts: Sequence[Columns], count: int) -> Columns:
    """Columns below each other; where one part was refused, all are."""
    refused = next((part for part in parts if "why" in part), None)
    if refused is not None:
        return {"why": np.repeat(refused["why"][:1], count)}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
