"""How alike two maps are, under one convention.

* Channels: a map (N, C, H, W) becomes one number per pixel, the sum of the absolute values over the
  channels; maps (N, H, W) and (N, D) have no channels and become their absolute values. Signs do not count.
* Every sample is compared on its own: (N, *), (N, *) -> (N,).
* k is a share of the pixels; at least one pixel is taken.
* Ties: in a top k the lower pixel index comes first; Kendall is tau-b, Spearman takes average ranks.
* Where a pixel lies counts for SSIM, the center of mass and the locality-tolerant top k only; these need
  maps (N, C, H, W) or (N, H, W).
* A map that says nothing (constant, for ranks and top k; zero, for the others) is as similar as can be to
  another such map (1, or distance 0), and not at all to any other map (0, or the largest distance).
* NaN and infinite values are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steadygrad.arguments import arithmetic
from steadygrad.attributions.pixels import constant, count_of, pair, settle, top, unit, zero
from steadygrad.attributions.pixels import pixel_maps as pixel_maps
from steadygrad.attributions.structure import local_top_k_intersection, mass_center_displacement, ssim


@arithmetic
def top_k_intersection(a: Tensor, b: Tensor, k: float = 0.1) -> Tensor:
    """Share (N,) of the top k pixels, a share in (0, 1], of a that are among the top k of b, in [0, 1].

    Source: Ghorbani et al. 2019, arXiv:1710.10547, section 3.

    >>> top_k_intersection(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), torch.tensor([[3.0, 0.0, 1.0, 2.0]]), k=0.5)
    tensor([0.5000])
    """
    a, b = pair(a, b)
    count = count_of(k, a.shape[1])
    common = (top(a, count) & top(b, count)).sum(1).to(a.dtype) / count
    return settle(common, constant(a), constant(b))


@arithmetic
def kendall(a: Tensor, b: Tensor) -> Tensor:
    """Kendall's tau-b (N,) of the pixel values, in [-1, 1], by SciPy on the CPU; not differentiable.

    >>> kendall(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]]))
    tensor([0.3333])
    """
    from scipy.stats import kendalltau

    a, b = pair(a, b)
    empty_a, empty_b = constant(a), constant(b)
    rows = zip(_array(a), _array(b), (empty_a | empty_b).tolist(), strict=True)
    # It serves the p-value only; the exact one is slow, and of two pixels there is no other.
    way = "asymptotic" if a.shape[1] > 2 else "exact"
    taus = [0.0 if skip else float(kendalltau(p, q, method=way).statistic) for p, q, skip in rows]
    return settle(torch.tensor(taus, dtype=a.dtype, device=a.device), empty_a, empty_b)


@arithmetic
def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation (N,) of the pixel values, in [-1, 1]; not differentiable.

    >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]]))
    tensor([0.5000])
    """
    from scipy.stats import rankdata

    a, b = pair(a, b)
    ranks = [torch.from_numpy(rankdata(_array(m), axis=1)) for m in (a, b)]
    centered = [r - r.mean(1, keepdim=True) for r in ranks]
    value = (unit(centered[0]) * unit(centered[1])).sum(1).clamp(-1, 1)
    return settle(value.to(a), constant(a), constant(b))


@arithmetic
def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine (N,) of the angle between the pixel maps, in [0, 1] since they are not negative; differentiable.

    >>> cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([0.7071])
    """
    a, b = pair(a, b)
    return settle((unit(a) * unit(b)).sum(1).clamp(0, 1), zero(a), zero(b))


@arithmetic
def euclidean(a: Tensor, b: Tensor, normalize: bool = True) -> Tensor:
    """Euclidean distance (N,) between the pixel maps; differentiable; smaller is more similar.

    Args:
        normalize: divide each pixel map by its l2 norm first, for a distance in [0, sqrt(2)]; otherwise the
            distance is in units of the maps, of zero maps too.

    >>> euclidean(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]]), normalize=False)
    tensor([5.])
    """
    a, b = pair(a, b)
    distance: Tensor = torch.linalg.vector_norm(unit(a) - unit(b) if normalize else a - b, dim=1)
    return settle(distance, zero(a), zero(b), same=0.0, different=math.sqrt(2)) if normalize else distance


@dataclass(frozen=True)
class Similarity:
    """What is known about a similarity without running it; one that `needs_place` does not take maps (N, D)."""

    function: Callable[[Tensor, Tensor], Tensor]
    range: tuple[float, float]
    higher_is_more_similar: bool
    summary: str
    needs_place: bool = False

    @property
    def name(self) -> str:
        """The name of the function."""
        return str(self.function.__name__)


_SHARE, _CORRELATION = (0.0, 1.0), (-1.0, 1.0)

SIMILARITIES: dict[str, Similarity] = {
    row.name: row
    for row in (
        Similarity(top_k_intersection, _SHARE, True, "share of the top 10 % of pixels in common"),
        Similarity(kendall, _CORRELATION, True, "Kendall's tau-b of the pixel values"),
        Similarity(spearman, _CORRELATION, True, "Spearman's rank correlation of the pixel values"),
        Similarity(cosine, _SHARE, True, "cosine of the pixel maps"),
        Similarity(euclidean, (0.0, math.sqrt(2)), False, "distance between the maps at unit l2 norm"),
        Similarity(ssim, _CORRELATION, True, "mean structural similarity of the maps at largest value 1", True),
        Similarity(mass_center_displacement, _SHARE, False, "distance of the centers of mass, in diagonals", True),
        Similarity(local_top_k_intersection, _SHARE, True, "share of top pixels with one of the other's near", True),
    )
}


def _array(maps: Tensor) -> Any:
    return maps.detach().cpu().double().numpy()
