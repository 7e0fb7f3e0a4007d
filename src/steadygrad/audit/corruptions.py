"""Accuracy under common corruptions: each kind at each severity, and the mean error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from steadygrad.data.corrupted_images import SEVERITIES, corruptions_in, load_corrupted
from steadygrad.files import open_array
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.runner import Runner, Tables
from steadygrad.measuring.statistics import share_of


def kinds(path: str | Path, count: int | None) -> dict[str, int]:
    """The corruptions in a folder in the layout of CIFAR-10-C, such as "fog 3": how many images, at most `count`."""
    found: dict[str, int] = {}
    for name in corruptions_in(path):
        images = open_array(Path(path) / f"{name}.npy", name).shape[0] // SEVERITIES
        size = images if count is None else min(count, images)
        found |= {f"{name} {severity}": size for severity in range(1, SEVERITIES + 1)}
    return found


def corrupted(runner: Runner, path: str | Path, kind: str, count: int | None) -> Runner:
    """A runner of the same models on so many images of a kind, drawn by the runner's seed, which are read now."""
    name, _, severity = kind.rpartition(" ")
    data = load_corrupted(path, name, int(severity), runner.data.classes, count, runner.seed)
    return dataclasses.replace(runner, data=data)


def corruptions(tables: Callable[[str], Tables], kinds: Iterable[str], model: str) -> dict[str, Any]:
    """The accuracy of a model under each kind, and the mean of 1 - accuracy, not divided by that of another model.

    Args:
        tables: where the measurements of a kind come from.

    Source: Hendrycks and Dietterich 2019, arXiv:1903.12261.
    """
    rows, errors = [], []
    for kind in kinds:
        table = tables(kind).run(Predicted(), model, title=f"predictions under {kind}")
        name, _, severity = kind.rpartition(" ")
        accuracy = share_of(table["right"])
        rows.append({"corruption": name, "severity": int(severity), "accuracy": accuracy.plain()})
        errors.append(1 - accuracy.value)
    return {"mean_error": sum(errors) / len(errors), "rows": rows}
