"""Choosing the weights of the penalties on held-out training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from steadygrad.papers.liu2022.settings import JACOBIANS, PENALTIES, SELECTIVES, Weights

__all__ = ["Search", "searched"]

SLACK = 0.01
"""Clean accuracy that a penalty may cost."""

Model = TypeVar("Model")
Train = Callable[[str, Weights], Model]
Scores = Callable[[Model], tuple[float, float]]


@dataclass
class Search:
    """The weights by model, and all candidates with their scores."""

    chosen: dict[str, Weights] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def searched(train: Train[Model], scores: Scores[Model], plain: float, eps: float) -> Search:
    """The weights that stand transferred attacks best, at a clean accuracy within a point of `plain`.

    `scores` gives the clean accuracy and the mean one under the attacks. J-SIGR tries the Jacobian's
    weight that was the best alone, and a third of it, beside each selective weight; the selective
    penalty alone takes what J-SIGR got, so that its half shows.
    """
    found, base = Search(), Weights()

    def best(name: str, candidates: Sequence[Weights]) -> Weights:
        rows: list[dict[str, Any]] = []
        for weights in candidates:
            accuracy, transferred = scores(train(name, weights.at(eps)))
            rows.append({"weights": weights, "accuracy": accuracy, "transferred": transferred})
            found.rows.append({"model": name, **rows[-1], "weights": weights.at(eps).of(name)})
        chosen = choice(rows, plain)
        found.chosen[name] = chosen.at(eps)
        return chosen

    best("penalty", [replace(base, penalty=weight) for weight in PENALTIES])
    alone = best("jacobian", [replace(base, jacobian=weight) for weight in JACOBIANS]).jacobian
    best("jsigr", [Weights(jacobian=j, selective=s) for j in (alone, alone / 3) for s in SELECTIVES])
    found.chosen["selective"] = found.chosen["jsigr"]
    return found


def choice(rows: Sequence[dict[str, Any]], plain: float) -> Weights:
    """The weights of the row that transferred attacks hurt least, among those that are accurate enough.

    Where none is, those of the most accurate row.

    >>> safe = {"weights": Weights(penalty=1.0), "accuracy": 0.97, "transferred": 0.5}
    >>> choice([safe, {"weights": Weights(penalty=9.0), "accuracy": 0.9, "transferred": 0.8}], 0.975).penalty
    1.0
    """
    fit = [row for row in rows if row["accuracy"] >= plain - SLACK]
    best = max(fit, key=lambda r: float(r["transferred"])) if fit else max(rows, key=lambda r: float(r["accuracy"]))
    weights: Weights = best["weights"]
    return weights
