"""The mean image, from which the centered rho2 measures how large an image is."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch import Tensor

from steadygrad.data.ahead import in_order
from steadygrad.data.dataset import Dataset
from steadygrad.data.hashes import caches
from steadygrad.data.lazy import LazyImages
from steadygrad.errors import Failure
from steadygrad.files import read_tensors, write_tensors


def mean_image(data: Dataset) -> Tensor:
    """The mean of all inputs (*), float32, from one batch after the other.

    That of image files which are not held is kept in the user's folder of caches, by the hashes of the files.
    """
    path = _kept(data)
    if path is not None and path.is_file():
        with contextlib.suppress(Failure, KeyError):
            return read_tensors(path)[0]["mean"]
    total = torch.zeros(data.shape, dtype=torch.float64)
    for x, _ in in_order(data, 200):
        total += x.sum(0, dtype=torch.float64)
    mean = (total / len(data)).float()
    if path is not None:
        with contextlib.suppress(Failure, OSError):  # it may not be written
            write_tensors(path, {"mean": mean}, {})
    return mean


def _kept(data: Dataset) -> Path | None:
    images = data.images
    if not isinstance(images, LazyImages) or images.hashes is None or images.fits:
        return None
    return caches() / f"mean-{data.fingerprint}.safetensors"
