"""Images under common corruptions in five severities, from a local folder in the layout of CIFAR-10-C."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from steadygrad.data.dataset import Dataset, balanced_order
from steadygrad.errors import UsageError, one_of
from steadygrad.files import open_array

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
    path: str | Path, corruption: str, severity: int, classes: Sequence[str], count: int | None = None, seed: int = 0
) -> Dataset:
    """Images of one corruption at one severity, drawn like `Dataset.draw`; only these are read from the file.

    A file holds images (5 n, H, W, C) or (5 n, H, W) of uint8, severities one after the other;
    `labels.npy` holds 5 n labels, or n.

    Args:
        path: the folder.
        corruption: such as "fog": the name of a file.
        severity: 1 to 5.
        classes: class names.
        count: how many images; None for all.
        seed: of the draw.

    Raises:
        UsageError: unknown names, or files of another form.
    """
    folder, known = Path(path), corruptions_in(path)
    one_of("corruption", corruption, known)
    if not 1 <= severity <= SEVERITIES:
        raise UsageError(f"severity must be within 1..{SEVERITIES}, got {severity}")
    images, labels = (open_array(folder / f"{name}.npy", name) for name in (corruption, "labels"))
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
    block = slice((severity - 1) * each, severity * each)
    own = np.array(labels[block] if len(labels) == len(images) else labels).astype(np.int64)
    rows = balanced_order(torch.from_numpy(own), seed)[:count].numpy()
    pixels = torch.from_numpy(np.array(images[block][rows]))
    pixels = pixels.permute(0, 3, 1, 2).contiguous() if pixels.ndim == 4 else pixels[:, None]
    return Dataset(
        pixels,
        torch.from_numpy(own[rows]),
        tuple(classes),
        tuple(f"{corruption}/{severity}/{i:05d}" for i in rows),
        name=f"{corruption} {severity}",
        split="test",
    )
