"""Accuracy under common corruptions: each kind at each severity, and the mean error."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steadygrad.data.corruptions import SEVERITIES, corruptions_in, load_corrupted
from steadygrad.errors import UsageError
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.runner import Runner, Tables
from steadygrad.measuring.statistics import Estimate, share_of
from steadygrad.measuring.table import Table

__all__ = ["Corrupted", "accuracies", "mean_corruption_error", "predictions", "runners"]


@dataclass(frozen=True)
class Corrupted:
    """The accuracy under one corruption at one severity."""

    corruption: str
    severity: int
    accuracy: Estimate

    def plain(self) -> dict[str, Any]:
        """The row as plain data for `summary.json`."""
        return {"corruption": self.corruption, "severity": self.severity, **self.accuracy.plain()}


def runners(
    runner: Runner,
    path: str | Path,
    *,
    count: int | None = None,
    severities: Sequence[int] = tuple(range(1, SEVERITIES + 1)),
) -> Iterator[tuple[str, Runner]]:
    """Each corruption and severity in a folder, such as "fog 3", with a runner on its images, which are read then.

    Args:
        runner: has the models; its data lend the names of the classes.
        path: a folder in the layout of CIFAR-10-C.
        count: the first so many images of each corruption and severity; None for all.

    Raises:
        UsageError: as `load_corrupted`.
    """
    for corruption in corruptions_in(path):
        for severity in severities:
            data = load_corrupted(path, corruption, severity, runner.data.classes, count)
            yield data.name, dataclasses.replace(runner, data=data)


def predictions(corrupted: Iterable[tuple[str, Tables]], model: str) -> Table:
    """What a model predicts for all corrupted images, columns of `Predicted`; from `runners`, or from saved tables."""
    return Table.join([tables.run(Predicted(), model, title=f"predictions, {name}") for name, tables in corrupted])


def accuracies(table: Table) -> list[Corrupted]:
    """The accuracy under each corruption at each severity, from a table of predictions.

    Args:
        table: with samples named as `load_corrupted` names them, such as "fog/3/00012".

    >>> columns = {"sample": ["fog/1/0"], "label": [2], "prediction": [2]}
    >>> accuracies(Table({name: np.array(values) for name, values in columns.items()}))[0].accuracy.value
    1.0
    """
    kinds = np.array([sample.rpartition("/")[0] for sample in table["sample"].tolist()])
    rows = []
    for kind in dict.fromkeys(kinds.tolist()):
        corruption, _, severity = kind.rpartition("/")
        some = table.select(kinds == kind)
        rows.append(Corrupted(corruption, int(severity), share_of(some["prediction"] == some["label"])))
    return rows


def mean_corruption_error(rows: Sequence[Corrupted]) -> float:
    """The mean over corruptions and severities of 1 - accuracy, not divided by that of another model.

    Source: Hendrycks and Dietterich 2019, arXiv:1903.12261.

    >>> rows = [Corrupted("fog", 1, share_of([True] * 9 + [False])), Corrupted("fog", 2, share_of([True, False]))]
    >>> round(mean_corruption_error(rows), 3)
    0.3
    """
    if not rows:
        raise UsageError("there are no rows to take the mean of")
    return sum(1 - row.accuracy.value for row in rows) / len(rows)
