"""Maps and inputs as pictures: one non-negative number per pixel, by the convention that `similarity` states."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadygrad.arguments import arithmetic
from steadygrad.errors import UsageError
from steadygrad.threat import per_sample


@arithmetic
def pixel_maps(maps: Tensor, name: str = "maps") -> Tensor:
    """One non-negative number per pixel, (N, P): the sum of absolute values over channels.

    Maps of another form, and NaN or infinite values, are refused.

    >>> pixel_maps(torch.tensor([[[[1.0, -2.0]], [[-3.0, 0.0]]]]))
    tensor([[4., 2.]])
    """
    if not maps.is_floating_point() or maps.ndim < 2 or maps.numel() == 0:
        raise UsageError(
            f"{name} must be floating-point maps (N, C, H, W), (N, H, W), (N, D) or (N, C, *), "
            f"got {maps.dtype} of shape {tuple(maps.shape)}"
        )
    finite = torch.isfinite(maps.detach()).flatten(1).all(1)
    if not bool(finite.all()):
        raise UsageError(f"{name} holds NaN or infinite values in {int((~finite).sum())} of {len(maps)} maps")
    return magnitude(maps)


def magnitude(maps: Tensor) -> Tensor:
    """`pixel_maps` without its checks, for loops that have made them once."""
    size = maps.abs()
    return size.sum(1).flatten(1) if maps.ndim > 3 else size.flatten(1)


def pictures(maps: Tensor, name: str = "maps") -> Tensor:
    """The pixel maps as pictures (N, H, W); maps (N, D), whose values have no place, are refused.

    >>> pictures(torch.ones(1, 3, 2, 2)).shape
    torch.Size([1, 2, 2])
    """
    if maps.ndim not in (3, 4):
        raise UsageError(f"{name} must be maps (N, C, H, W) or (N, H, W) with a place, got shape {tuple(maps.shape)}")
    return pixel_maps(maps, name).reshape(len(maps), *maps.shape[-2:])


def pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The pixel maps (N, P) of two batches of maps of one shape."""
    check_shapes(a, b)
    return pixel_maps(a, "a"), pixel_maps(b, "b")


def check_shapes(a: Tensor, b: Tensor) -> None:
    """Refuse maps of different shapes."""
    if a.shape != b.shape:
        raise UsageError(f"maps a and b must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}")


def count_of(k: float, pixels: int) -> int:
    """How many pixels the share k is: rounded, at least one.

    >>> count_of(0.1, 64)
    6
    """
    if not 0 < k <= 1:
        raise UsageError(f"k must be a share of the pixels in (0, 1], got {k}")
    return max(1, round(k * pixels))


def top(maps: Tensor, count: int) -> Tensor:
    """Which pixels (N, P) bool are the `count` largest; among equals, the lower index."""
    order = torch.sort(maps, dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(maps, dtype=torch.bool).scatter_(1, order, True)


def unit(maps: Tensor) -> Tensor:
    """Rows (N, P) of l2 norm 1; a row of zeros stays one."""
    # Divided by the largest entry first: the squares of small gradients underflow in float32.
    largest = maps.detach().abs().amax(1, keepdim=True)
    scaled = maps / torch.where(largest > 0, largest, 1.0)
    norm = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / torch.where(norm > 0, norm, 1.0)


def over_largest(values: Tensor) -> Tensor:
    """Values (N, *) that are not negative, divided by the largest of their sample; zeros stay zeros."""
    largest = per_sample(values.flatten(1).amax(1), values)
    return values / torch.where(largest > 0, largest, 1.0)


def constant(maps: Tensor) -> Tensor:
    """Which rows (N,) hold a single value."""
    return maps.amax(1) == maps.amin(1)


def zero(maps: Tensor) -> Tensor:
    """Which rows (N,) of non-negative values hold zeros only."""
    return maps.amax(1) == 0


def settle(value: Tensor, empty_a: Tensor, empty_b: Tensor, same: float = 1.0, different: float = 0.0) -> Tensor:
    """The values (N,), but `same` where both maps are empty and `different` where only one is."""
    value = torch.where(empty_a ^ empty_b, different, value)
    return torch.where(empty_a & empty_b, same, value)


def plane_of(x: Tensor) -> tuple[int, int]:
    """Height and width of the picture of an input of a batch (N, *): a row, where it is no image."""
    return (int(x.shape[2]), int(x.shape[3])) if x.ndim == 4 else (1, int(x[0].numel()))


def map_planes(maps: Tensor, x: Tensor) -> Tensor:
    """The pixel maps of inputs x (M, *) as planes (N, H, W) to be drawn, in single precision.

    >>> map_planes(torch.ones(2, 3, 4, 5, dtype=torch.float64), torch.ones(1, 3, 4, 5)).shape
    torch.Size([2, 4, 5])
    """
    return pixel_maps(maps).float().view(len(maps), *plane_of(x))


def image_array(x: Tensor) -> NDArray[Any]:
    """Inputs (N, *) as pictures (N, C, H, W) of float32."""
    x = x if x.ndim == 4 else x.flatten(1)[:, None, None]
    return x.detach().cpu().numpy().astype(np.float32)
