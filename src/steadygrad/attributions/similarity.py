"""How alike two maps are, under one convention.

* Channels: a map (N, C, H, W) becomes one number per pixel, the sum of the absolute values over the
  channels; maps (N, H, W) and (N, D) have no channels and become their absolute values. Signs do not count.
* Every sample is compared on its own: (N, *), (N, *) -> (N,).
* k is a share of the pixels; at least one pixel is taken.
* Ties: in a top k the lower pixel index comes first; Kendall is tau-b, Spearman takes average ranks.
* A map that says nothing (constant, for ranks and top k; zero, for cosine and Euclidean) is as similar as
  can be to another such map (1, or distance 0), and not at all to any other map (0, or distance sqrt(2)).
* NaN and infinite values are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steadygrad.errors import UsageError

__all__ = [
    "SIMILARITIES",
    "Similarity",
    "cosine",
    "euclidean",
    "kendall",
    "pixel_maps",
    "spearman",
    "top_k_intersection",
]


def pixel_maps(maps: Tensor, name: str = "maps") -> Tensor:
    """One non-negative number per pixel, (N, P): the sum of absolute values over channels.

    Raises:
        UsageError: maps of another form, or NaN or infinite values in them.

    >>> pixel_maps(torch.tensor([[[[1.0, -2.0]], [[-3.0, 0.0]]]]))
    tensor([[4., 2.]])
    """
    if not maps.is_floating_point() or maps.ndim not in (2, 3, 4) or maps.numel() == 0:
        raise UsageError(
            f"{name} must be floating-point maps (N, C, H, W), (N, H, W) or (N, D), "
            f"got {maps.dtype} of shape {tuple(maps.shape)}"
        )
    finite = torch.isfinite(maps.detach()).flatten(1).all(1)
    if not bool(finite.all()):
        raise UsageError(f"{name} holds NaN or infinite values in {int((~finite).sum())} of {len(maps)} maps")
    magnitude = maps.abs()
    return magnitude.sum(1).flatten(1) if maps.ndim == 4 else magnitude.flatten(1)


def top_k_intersection(a: Tensor, b: Tensor, k: float = 0.1) -> Tensor:
    """Share (N,) of the top k pixels of a that are among the top k of b, in [0, 1].

    Args:
        a: maps (N, *).
        b: maps of the same shape.
        k: share of the pixels, in (0, 1], rounded to whole pixels.

    Source: Ghorbani et al. 2019, arXiv:1710.10547, section 3.

    >>> top_k_intersection(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), torch.tensor([[3.0, 0.0, 1.0, 2.0]]), k=0.5)
    tensor([0.5000])
    """
    if not 0 < k <= 1:
        raise UsageError(f"k must be a share of the pixels in (0, 1], got {k}")
    a, b = _pair(a, b)
    count = max(1, round(k * a.shape[1]))
    common = (_top(a, count) & _top(b, count)).sum(1).to(a.dtype) / count
    return _settle(common, _constant(a), _constant(b))


def kendall(a: Tensor, b: Tensor) -> Tensor:
    """Kendall's tau-b (N,) of the pixel values, in [-1, 1], by SciPy on the CPU; not differentiable.

    >>> kendall(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]]))
    tensor([0.3333])
    """
    from scipy.stats import kendalltau

    a, b = _pair(a, b)
    empty_a, empty_b = _constant(a), _constant(b)
    rows = zip(_array(a), _array(b), (empty_a | empty_b).tolist(), strict=True)
    # The exact distribution serves the p-value only, and is slow.
    taus = [0.0 if skip else float(kendalltau(p, q, method="asymptotic").statistic) for p, q, skip in rows]
    return _settle(torch.tensor(taus, dtype=a.dtype, device=a.device), empty_a, empty_b)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation (N,) of the pixel values, in [-1, 1]; not differentiable.

    >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]]))
    tensor([0.5000])
    """
    from scipy.stats import rankdata

    a, b = _pair(a, b)
    ranks = [torch.from_numpy(rankdata(_array(m), axis=1)) for m in (a, b)]
    centered = [r - r.mean(1, keepdim=True) for r in ranks]
    value = (_unit(centered[0]) * _unit(centered[1])).sum(1).clamp(-1, 1)
    return _settle(value.to(a), _constant(a), _constant(b))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine (N,) of the angle between the pixel maps, in [0, 1] since they are not negative; differentiable.

    >>> cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([0.7071])
    """
    a, b = _pair(a, b)
    return _settle((_unit(a) * _unit(b)).sum(1).clamp(0, 1), _zero(a), _zero(b))


def euclidean(a: Tensor, b: Tensor, normalize: bool = True) -> Tensor:
    """Euclidean distance (N,) between the pixel maps; differentiable; smaller is more similar.

    Args:
        a: maps (N, *).
        b: maps of the same shape.
        normalize: divide each pixel map by its l2 norm first, which gives a distance in [0, sqrt(2)];
            otherwise the distance is in units of the maps, and zero maps are nothing special.

    >>> euclidean(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]]), normalize=False)
    tensor([5.])
    """
    a, b = _pair(a, b)
    if not normalize:
        plain: Tensor = torch.linalg.vector_norm(a - b, dim=1)
        return plain
    distance = torch.linalg.vector_norm(_unit(a) - _unit(b), dim=1)
    return _settle(distance, _zero(a), _zero(b), same=0.0, different=math.sqrt(2))


@dataclass(frozen=True)
class Similarity:
    """What is known about a similarity without running it."""

    name: str
    function: Callable[[Tensor, Tensor], Tensor]
    range: tuple[float, float]
    higher_is_more_similar: bool
    summary: str


SIMILARITIES: dict[str, Similarity] = {
    row.name: row
    for row in (
        Similarity(
            "top_k_intersection", top_k_intersection, (0.0, 1.0), True, "share of the top 10 % of pixels in common"
        ),
        Similarity("kendall", kendall, (-1.0, 1.0), True, "Kendall's tau-b of the pixel values"),
        Similarity("spearman", spearman, (-1.0, 1.0), True, "Spearman's rank correlation of the pixel values"),
        Similarity("cosine", cosine, (0.0, 1.0), True, "cosine of the pixel maps"),
        Similarity("euclidean", euclidean, (0.0, math.sqrt(2)), False, "distance between the maps at unit l2 norm"),
    )
}


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape:
        raise UsageError(f"maps a and b must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    return pixel_maps(a, "a"), pixel_maps(b, "b")


def _array(maps: Tensor) -> Any:
    return maps.detach().double().cpu().numpy()


def _top(maps: Tensor, count: int) -> Tensor:
    order = torch.sort(maps, dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(maps, dtype=torch.bool).scatter_(1, order, True)


def _unit(maps: Tensor) -> Tensor:
    # Divided by the largest entry first: the squares of small gradients underflow in float32.
    largest = maps.detach().abs().amax(1, keepdim=True)
    scaled = maps / torch.where(largest > 0, largest, 1.0)
    norm = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / torch.where(norm > 0, norm, 1.0)


def _constant(maps: Tensor) -> Tensor:
    return maps.amax(1) == maps.amin(1)


def _zero(maps: Tensor) -> Tensor:
    return maps.amax(1) == 0


def _settle(value: Tensor, empty_a: Tensor, empty_b: Tensor, same: float = 1.0, different: float = 0.0) -> Tensor:
    value = torch.where(empty_a ^ empty_b, different, value)
    return torch.where(empty_a & empty_b, same, value)
