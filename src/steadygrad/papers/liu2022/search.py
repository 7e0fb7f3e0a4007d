"""Choosing the weights of the penalties on held-out training images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from steadygrad.papers.liu2022.settings import JACOBIANS, PENALTIES, SELECTIVES, Weights

__all__ = ["Search", "searched"]

SLACK = 0.01
"""Clean accuracy that a penalty may cost."""

Model = TypeVar("Model")
Row = dict[str, Any]
Train = Callable[[str, Weights], Model]
Scores = Callable[[Model], tuple[float, float]]


@dataclass
class Search:
    """The weights by model, and all candidates with their scores."""

    chosen: dict[str, Weights] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def searched(train: Train[Model], scores: Scores[Model], plain: float, eps: float) -> Search:
    """The weights that stand transferred attacks best, at a clean accuracy within a point of `plain`.

    `scores` gives the clean accuracy and the mean one under the attacks. Each kind of weight is tried from
    the smallest on, until one is no better than the one before it or costs more than that point. J-SIGR
    climbs the selective weights beside the Jacobian's that was chosen alone, and at the best of them tries
    a third of that; the selective penalty alone takes what J-SIGR got, so that its half shows.
    """
    found = Search()

    def row(name: str, weights: Weights) -> Row:
        accuracy, transferred = scores(train(name, weights.at(eps)))
        row = {"weights": weights, "accuracy": accuracy, "transferred": transferred}
        found.rows.append({"model": name, **row, "weights": weights.at(eps).of(name)})
        return row

    def climbed(name: str, candidates: Iterable[Weights]) -> list[Row]:
        rows: list[Row] = []
        for weights in candidates:
            rows.append(row(name, weights))
            if not fits(rows[-1], plain) or (rows[1:] and rows[-1]["transferred"] <= rows[-2]["transferred"]):
                break
        return rows

    penalty = choice(climbed("penalty", (Weights(penalty=weight) for weight in PENALTIES)), plain)
    jacobian = choice(climbed("jacobian", (Weights(jacobian=weight) for weight in JACOBIANS)), plain)
    rows = climbed("jsigr", (replace(jacobian, selective=weight) for weight in SELECTIVES))
    best = choice(rows, plain)
    jsigr = choice([*rows, row("jsigr", replace(best, jacobian=best.jacobian / 3))], plain)
    chosen = {"penalty": penalty, "jacobian": jacobian, "jsigr": jsigr, "selective": jsigr}
    found.chosen |= {name: weights.at(eps) for name, weights in chosen.items()}
    return found


def fits(row: Row, plain: float) -> bool:
    """Whether a candidate is accurate enough on clean inputs."""
    return float(row["accuracy"]) >= plain - SLACK


def choice(rows: Sequence[Row], plain: float) -> Weights:
    """The weights of the row that transferred attacks hurt least, among those that are accurate enough.

    Where none is, those of the most accurate row.

    >>> safe = {"weights": Weights(penalty=1.0), "accuracy": 0.97, "transferred": 0.5}
    >>> choice([safe, {"weights": Weights(penalty=9.0), "accuracy": 0.9, "transferred": 0.8}], 0.975).penalty
    1.0
    """
    fit = [row for row in rows if fits(row, plain)]
    best = max(fit, key=lambda r: float(r["transferred"])) if fit else max(rows, key=lambda r: float(r["accuracy"]))
    weights: Weights = best["weights"]
    return weights
