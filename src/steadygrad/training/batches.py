"""The order of the training data, and random crops and flips.

All of it follows from (seed, epoch, step) for a whole batch, which processes then share: a run that is continued, or
spread over processes, sees the same inputs.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad.data import Dataset
from steadygrad.randomness import fresh, seed_of

Augment = Literal["none", "flip", "crop_flip"]

_MOST_BYTES = 4 << 30


def steps_of(count: int, batch_size: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """The batches of one epoch as positions in the data.

    Their sizes differ by one at most, so that all samples weigh alike. None has one sample alone, of which there is no
    batch normalization, unless all have.

    >>> [len(batch) for batch in steps_of(10, 4, seed=0, epoch=0)]
    [4, 3, 3]
    """
    order = torch.randperm(count, generator=fresh(seed_of("order", seed, epoch)))
    parts = -(-count // batch_size)
    return order.tensor_split(parts if batch_size == 1 else max(1, min(parts, count // 2)))


def pieces_of(part: slice, count: int) -> list[slice]:
    """A part of a batch in `count` pieces that differ by one sample at most; fewer, if one would have a single sample.

    >>> pieces_of(slice(4, 11), 2), len(pieces_of(slice(0, 5), 4))
    ([slice(4, 7, None), slice(7, 11, None)], 2)
    """
    size = part.stop - part.start
    count = max(1, min(count, size // 2))
    ends = [part.start + size * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


def on_device(data: Dataset, device: torch.device) -> Dataset:
    """The data set in the memory of the device if it is not very large, else as it is."""
    images = data.images
    if device.type == "cpu" or not isinstance(images, Tensor) or images.nbytes > _MOST_BYTES:
        return data
    return dataclasses.replace(data, images=images.to(device), labels=data.labels.to(device))


def augmented(x: Tensor, kind: Augment, seed: int, count: int, part: slice) -> Tensor:
    """Images x (n, C, H, W), the `part` of a batch of `count`, flipped and shifted at random.

    Shifts go up to an eighth of the image, filled with zeros (4 pixels of 32, as is usual).
    """
    if kind == "none":
        return x
    generator = fresh(seed)
    flip = (torch.rand(count, generator=generator) < 0.5)[part].to(x.device)
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    if kind == "flip":
        return x
    reach = max(1, min(x.shape[2:]) // 8)
    shift = torch.randint(2 * reach + 1, (2, count), generator=generator)[:, part].to(x.device)
    padded = F.pad(x, (reach,) * 4)
    rows = shift[0][:, None] + torch.arange(x.shape[2], device=x.device)  # (n, H)
    columns = shift[1][:, None] + torch.arange(x.shape[3], device=x.device)  # (n, W)
    samples = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[samples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (n, C, H, W)
