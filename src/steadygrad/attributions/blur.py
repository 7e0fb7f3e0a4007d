"""Gaussian blur of images of any size, as two small matrix products."""

from __future__ import annotations

import torch
from torch import Tensor


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Images (N, C, H, W) under a Gaussian blur of standard deviation sigma pixels.

    The filter ends at 4 sigma and sees the image mirrored at its borders, as SciPy's does by default.

    >>> blurred(torch.ones(1, 1, 4, 6), 3.0).allclose(torch.ones(1, 1, 4, 6))
    True
    """
    down, across = (_blur(size, sigma).to(x) for size in x.shape[2:])
    return down @ x @ across.T


def _blur(size: int, sigma: float) -> Tensor:
    """The matrix (size, size) that blurs a line of pixels."""
    reach = int(4 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    taps = torch.exp(-offsets.double().square() / (2 * sigma**2))
    place = (torch.arange(size)[:, None] + offsets) % (2 * size)  # (size, taps)
    place = torch.where(place < size, place, 2 * size - 1 - place)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, place, (taps / taps.sum()).expand(size, -1))
