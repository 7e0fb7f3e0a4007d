"""Similarities (N,) of maps (N, C, H, W) or (N, H, W) that look at where pixels lie.

They refuse maps of different shapes, without a place or with values that are not finite (UsageError).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad.arguments import arithmetic, quick
from steadygrad.attributions.pixels import check_shapes, constant, count_of, over_largest, pictures, settle, top, zero
from steadygrad.errors import UsageError

_K1, _K2, _SIGMA, _WINDOW = 0.01, 0.03, 1.5, 11


@arithmetic
def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity (N,) of the pixel maps, each divided by its largest value, in [-1, 1].

    Gaussian windows of 11 pixels (or the largest odd number that fits) with standard deviation 1.5,
    only where they lie within the map; constants .01 and .03 for values in [0, 1]; differentiable.

    Source: Wang, Bovik, Sheikh and Simoncelli 2004, equation 13.

    >>> ssim(torch.eye(5)[None], torch.eye(5)[None])
    tensor([1.])
    """
    a, b = _pictures(a, b)
    empty_a, empty_b = zero(a.flatten(1)), zero(b.flatten(1))
    a, b = over_largest(a), over_largest(b)
    side = min(_WINDOW, *a.shape[1:])
    side -= 1 - side % 2
    bell = torch.exp(-((torch.arange(side, dtype=a.dtype, device=a.device) - side // 2) ** 2) / (2 * _SIGMA**2))
    bell = bell / bell.sum()
    window = (bell[:, None] * bell)[None, None]  # (1, 1, S, S)

    def local(values: Tensor) -> Tensor:
        return F.conv2d(values[:, None], window).flatten(1)  # (N, places)

    mean_a, mean_b = local(a), local(b)
    # Rounding may leave a variance just below zero.
    var_a, var_b = (local(a * a) - mean_a**2).clamp_min(0), (local(b * b) - mean_b**2).clamp_min(0)
    covariance = local(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + _K1**2) / (mean_a**2 + mean_b**2 + _K1**2)
    value = light * (2 * covariance + _K2**2) / (var_a + var_b + _K2**2)
    return settle(value.mean(1).clamp(-1, 1), empty_a, empty_b)


@arithmetic
def center_of_mass(maps: Tensor) -> Tensor:
    """Row and column (N, 2) of the center of mass of the pixel maps, in pixels; differentiable.

    A map of zeros has its center in the middle.

    >>> center_of_mass(torch.tensor([[[0.0, 1.0], [0.0, 3.0]]]))
    tensor([[0.7500, 1.0000]])
    """
    return center_of(pictures(maps))


@quick
def center_of(picture: Tensor) -> Tensor:
    """`center_of_mass` of non-negative pictures (N, H, W), unchecked."""
    # The scale is taken out first, and zeros weigh alike, so that no sum underflows.
    weights = torch.where(zero(picture.flatten(1))[:, None, None], 1.0, over_largest(picture))
    total = weights.sum((1, 2))
    rows, columns = (torch.arange(n, dtype=picture.dtype, device=picture.device) for n in picture.shape[1:])
    return torch.stack([(weights.sum(2) * rows).sum(1), (weights.sum(1) * columns).sum(1)], 1) / total[:, None]


@arithmetic
def mass_center_displacement(a: Tensor, b: Tensor, pixels: bool = False) -> Tensor:
    """Distance (N,) between the centers of mass of the pixel maps; differentiable; smaller is more similar.

    With `pixels` in pixels, otherwise as a share of the diagonal, in [0, 1].

    Source: Ghorbani et al. 2019, arXiv:1710.10547, section 3.

    >>> a, b = torch.zeros(1, 4, 5), torch.zeros(1, 4, 5)
    >>> a[0, 0, 0] = b[0, 3, 4] = 1
    >>> mass_center_displacement(a, b), mass_center_displacement(a, b, pixels=True)
    (tensor([1.]), tensor([5.]))
    """
    first, second = _pictures(a, b)
    diagonal = math.hypot(*(n - 1 for n in first.shape[1:])) or 1.0
    distance: Tensor = torch.linalg.vector_norm(center_of(first) - center_of(second), dim=1)
    # Two maps cannot be further apart than the corners, but for rounding.
    share = (distance / diagonal).clamp(0, 1)
    value = share * diagonal if pixels else share
    return settle(value, zero(first.flatten(1)), zero(second.flatten(1)), 0.0, diagonal if pixels else 1.0)


@arithmetic
def local_top_k_intersection(a: Tensor, b: Tensor, k: float = 0.1, radius: int = 1) -> Tensor:
    """Share (N,) of top k pixels with one of the other map's within `radius` rows and columns, in [0, 1].

    The mean of both directions: top pixels of a near one of b, and of b near one of a; k is a share in (0, 1].
    With radius 0 it is `top_k_intersection`, which counts a shift by one pixel like one across the picture.

    Source: Kamath et al. 2024, arXiv:2312.10534, section 3 (LENS precision and recall at k).

    >>> a, b = torch.zeros(1, 5, 5), torch.zeros(1, 5, 5)
    >>> a[0, 1, 1] = b[0, 2, 2] = 1
    >>> local_top_k_intersection(a, b, k=0.04), local_top_k_intersection(a, b, k=0.04, radius=0)
    (tensor([1.]), tensor([0.]))
    """
    if radius < 0:
        raise UsageError(f"radius must be at least 0 pixels, got {radius}")
    a, b = _pictures(a, b)
    count = count_of(k, a[0].numel())
    tops = [top(m.flatten(1), count).to(m.dtype).view_as(m)[:, None] for m in (a, b)]  # (N, 1, H, W)
    near = [F.max_pool2d(t, 2 * radius + 1, stride=1, padding=radius) for t in tops]
    share = (tops[0] * near[1] + tops[1] * near[0]).flatten(1).sum(1) / (2 * count)
    return settle(share, constant(a.flatten(1)), constant(b.flatten(1)))


def _pictures(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    check_shapes(a, b)
    return pictures(a, "a"), pictures(b, "b")
