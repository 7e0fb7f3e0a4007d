"""How far a sample must be moved: the smallest changes found, with what was not found kept as censored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from steadygrad.attacks import DDN, FMN, Attack, DeepFool
from steadygrad.evaluation.records import Records
from steadygrad.evaluation.robustness import Bench, label_of
from steadygrad.measuring.statistics import quantile_intervals
from steadygrad.threat import Threat

__all__ = ["Distances", "distances", "nearest"]


@dataclass(frozen=True)
class Distances:
    """Quantiles of the smallest changes found, among the `count` samples that were right before.

    `censored` of them no attack changed at any size up to `limit`, the whole range of the inputs; a
    quantile among them is None: beyond the limit, never 0. Found distances are upper bounds.
    """

    attack: str
    count: int
    censored: int
    limit: float
    quantiles: dict[str, dict[str, float | None]]

    def plain(self) -> dict[str, Any]:
        """The distances as plain data for `summary.json`."""
        return {
            "attack": self.attack,
            "count": self.count,
            "censored": self.censored,
            "limit": self.limit,
            "quantiles": self.quantiles,
        }


def nearest(norm: str) -> tuple[Attack, ...]:
    """The attacks that search for the smallest change in a norm.

    DDN for l2 and FMN otherwise, 100 steps; beside them DeepFool, where it works, which is cheap and
    exact for samples right beside the boundary, where the others stay too far away.
    """
    search: Attack = DDN() if norm == "l2" else FMN()
    return (search, DeepFool()) if norm in DeepFool.norms else (search,)


def distances(
    bench: Bench, model: nn.Module, name: str, threat: Threat, count: int, known: Records | None = None
) -> Distances:
    """Search the smallest change of the first `count` samples of a bench, in the norm of the threat.

    `known` are records of white-box attacks on the same model: a change found there that is smaller
    than the one of the search counts, so that the distances do not contradict the accuracies.
    """
    attacks = nearest(threat.norm)
    runs = [bench.run(model, name, attack, threat.at(None), count=count) for attack in attacks]
    frame = runs[0].frame
    right = frame.loc[frame["clean_prediction"] == frame["label"], "sample"]
    found = np.full(len(right), np.inf)
    for records in [*runs, *([] if known is None else [known])]:
        smallest = records.frame.groupby("sample")["distance"].min().reindex(right).fillna(np.inf)
        found = np.minimum(found, smallest.to_numpy())
    x, _, _ = next(iter(bench.batches(0, 1)))
    return Distances(
        attack=" and ".join(map(label_of, attacks)),
        count=len(found),
        censored=int(np.isinf(found).sum()),
        limit=float(threat.largest(x)[0]),
        quantiles=quantile_intervals(found),
    )
