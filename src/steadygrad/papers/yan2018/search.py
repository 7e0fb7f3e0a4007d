"""Choosing each method's settings on validation data, from the grid of the network's recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from steadygrad.classifier import Classifier
from steadygrad.papers.lessons import Trained
from steadygrad.papers.yan2018.recipes import Recipe, Way

__all__ = ["chosen", "searched"]

_LOSS_ALLOWED = 0.001


def searched(
    recipe: Recipe,
    names: Sequence[str],
    train: Callable[[str, Way, Classifier], Trained],
    scores: Callable[[Classifier], tuple[float, float]],
    reference: Trained,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], dict[str, float]]:
    """For each method the changes to its recipe that are best on validation data.

    `scores` gives accuracy and rho2 on the validation data. Returns the changes, the table of all
    candidates, and the seconds spent.
    """
    accuracy, rho = scores(reference.classifier)
    table: dict[str, Any] = {"reference": {"accuracy": accuracy, "rho2": rho}, "candidates": {}}
    best: dict[str, dict[str, Any]] = {}
    seconds = {"search reference": reference.seconds}
    for name in names:
        rows = []
        for number, changes in enumerate(recipe.candidates(name)):
            found = train(f"{name}-{number}", recipe.method(name, changes), reference.classifier)
            seconds[f"search {name}"] = seconds.get(f"search {name}", 0.0) + found.seconds
            right, size = scores(found.classifier)
            rows.append({"changes": changes, "accuracy": right, "rho2": size})
        best[name] = chosen(rows, accuracy)
        table["candidates"][name] = {"rows": rows, "chosen": best[name]}
    return best, table, seconds


def chosen(rows: list[dict[str, Any]], accuracy: float) -> dict[str, Any]:
    """The changes of the row of largest rho2 that loses at most .1 point of the reference's accuracy.

    Where all lose more, those of the most accurate row.

    >>> safe = {"changes": {"a": 1}, "accuracy": 0.99, "rho2": 0.2}
    >>> chosen([safe, {"changes": {"a": 2}, "accuracy": 0.9, "rho2": 0.5}], 0.99)
    {'a': 1}
    """
    good = [row for row in rows if row["accuracy"] >= accuracy - _LOSS_ALLOWED]
    best = max(good, key=lambda r: float(r["rho2"])) if good else max(rows, key=lambda r: float(r["accuracy"]))
    changes: dict[str, Any] = best["changes"]
    return changes
