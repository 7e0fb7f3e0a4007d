"""Accuracy under common corruptions in five severities, from a local folder in the layout of CIFAR-10-C."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from steadygrad.classifier import predict
from steadygrad.data import Dataset
from steadygrad.errors import UsageError, unknown_name
from steadygrad.evaluation.robustness import predict
from steadygrad.evaluation.statistics import Estimate, wilson
from steadygrad.measuring.statistics import Estimate, wilson

__all__ = ["SEVERITIES", "Corrupted", "corrupted_accuracy", "corruptions_in", "load_corrupted", "mean_corruption_error"]

SEVERITIES = 5


def corruptions_in(path: str | Path) -> tuple[str, ...]:
    """The names of the corruptions in a folder: its `.npy` files but `labels.npy`.

    Raises:
        UsageError: no such folder, no labels, or no corruption in it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: unpack CIFAR-10-C there, which is one .npy file per corruption")
    names = tuple(sorted(file.stem for file in folder.glob("*.npy") if file.stem != "labels"))
    if not (folder / "labels.npy").is_file() or not names:
        raise UsageError(
            f"{folder} must hold labels.npy and one .npy file per corruption, such as fog.npy; "
            f"it holds {', '.join(sorted(f.name for f in folder.iterdir())[:5]) or 'nothing'}"
        )
    return names


def load_corrupted(
    path: str | Path, corruption: str, severity: int, classes: Sequence[str], count: int | None = None
) -> Dataset:
    """The first images of one corruption at one severity; only these are read from the file.

    A file holds images (5 n, H, W, C) or (5 n, H, W) of uint8, severities one after the other;
    `labels.npy` holds 5 n labels, or n.

    Args:
        path: the folder.
        corruption: such as "fog": the name of a file.
        severity: 1 to 5.
        classes: class names.
        count: how many images; None for all.

    Raises:
        UsageError: unknown names, or files of another form.
    """
    folder, known = Path(path), corruptions_in(path)
    if corruption not in known:
        raise unknown_name("corruption", corruption, known)
    if not 1 <= severity <= SEVERITIES:
        raise UsageError(f"severity must be within 1..{SEVERITIES}, got {severity}")
    images, labels = (_array(folder / f"{name}.npy") for name in (corruption, "labels"))
    each, rest = divmod(len(images), SEVERITIES)
    if images.ndim not in (3, 4) or images.dtype != np.uint8 or rest or not each:
        raise UsageError(
            f"{folder / corruption}.npy must hold uint8 images (5 n, H, W, C), "
            f"got {images.dtype} of shape {images.shape}"
        )
    if labels.shape not in ((len(images),), (each,)) or labels.dtype.kind not in "iu":
        raise UsageError(
            f"{folder / 'labels.npy'} must hold {len(images)} integer labels, or {each} for each severity, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    first = (severity - 1) * each
    stop = first + (each if count is None else min(count, each))
    place = slice(first, stop) if len(labels) == len(images) else slice(0, stop - first)
    pixels = torch.from_numpy(np.array(images[first:stop]))
    pixels = pixels.permute(0, 3, 1, 2).contiguous() if pixels.ndim == 4 else pixels[:, None]
    return Dataset(
        pixels,
        torch.from_numpy(np.array(labels[place]).astype(np.int64)),
        tuple(classes),
        tuple(f"{corruption}/{severity}/{i:05d}" for i in range(stop - first)),
        name=f"{corruption} {severity}",
        split="test",
    )


def _array(path: Path) -> np.ndarray[Any, Any]:
    try:
        found: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UsageError(f"{path} is not a NumPy file of numbers: {error}") from None
    return found


@dataclass(frozen=True)
class Corrupted:
    """The accuracy under one corruption at one severity."""

    corruption: str
    severity: int
    accuracy: Estimate

    def plain(self) -> dict[str, Any]:
        """The row as plain data for `summary.json`."""
        return {"corruption": self.corruption, "severity": self.severity, **self.accuracy.plain()}


def corrupted_accuracy(
    model: nn.Module,
    path: str | Path,
    classes: Sequence[str],
    *,
    count: int | None = None,
    severities: Sequence[int] = tuple(range(1, SEVERITIES + 1)),
    device: str = "cpu",
    batch_size: int = 200,
) -> Iterator[Corrupted]:
    """The accuracy under every corruption in a folder at every severity, one after the other.

    Raises:
        UsageError: as `load_corrupted`.
    """
    for corruption in corruptions_in(path):
        for severity in severities:
            data = load_corrupted(path, corruption, severity, classes, count)
            right = 0
            for start in range(0, len(data), batch_size):
                x, y = (t.to(device) for t in data.batch(slice(start, start + batch_size)))
                right += int((predict(model, x)[0] == y).sum())
            yield Corrupted(corruption, severity, wilson(right, len(data)))


def mean_corruption_error(rows: Sequence[Corrupted]) -> float:
    """The mean over corruptions and severities of 1 - accuracy, not divided by that of another model.

    Source: Hendrycks and Dietterich 2019, arXiv:1903.12261.

    >>> round(mean_corruption_error([Corrupted("fog", 1, wilson(9, 10)), Corrupted("fog", 2, wilson(7, 10))]), 3)
    0.2
    """
    if not rows:
        raise UsageError("there are no rows to take the mean of")
    return sum(1 - row.accuracy.value for row in rows) / len(rows)
