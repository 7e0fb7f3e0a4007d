"""The momentum iterative method, with the two averages that help its points to transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad import randomness
from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.losses import LossName
from steadygrad.attacks.run import Run
from steadygrad.errors import UsageError
from steadygrad.precision import wide
from steadygrad.values import Count, Limit, NotNegative, Positive, Share

_Probability = Annotated[float, Limit("a probability within [0, 1]", lambda value: 0 <= value <= 1)]
_Side = Annotated[
    int, Limit("an odd side of the kernel, or 0 for none", lambda value: value == 0 or (value > 0 and value % 2 == 1))
]


@ATTACKS.register(
    "mifgsm",
    summary="BIM along an average of L1-normalized gradients; input diversity and translation as settings",
    reference="Dong et al. 2018, arXiv 1710.06081; Xie et al. 2019, 1803.06978; Dong et al. 2019, 1904.02884",
    cost="steps x (1 forward + 1 backward)",
    norms=("linf", "l2"),
)
@dataclass(frozen=True)
class MIFGSM(Attack):
    """Steps along g <- decay g + slope / |slope|_1, each sample by itself: made to fool other models.

    With diversity, most steps see the image shrunk and padded at random, and such views count as
    wrong points only if they are allowed themselves: as an attack on the model itself it is weaker.

    Args:
        steps: gradient steps from the clean input.
        step: length of a step in radii. The paper's is 1 / steps, with which only an entry whose slope never
            turns gets to the edge of the ball; the default, 2.5 / steps, finds more, on other models too.
        decay: weight of the past; 0 is BIM.
        loss: what is ascended; the paper's is "ce".
        diversity: probability that a step sees the image resized and padded (Xie et al. take 0.5).
        shrink: smallest side of the resized image, as a share of its side.
        translation: side of the Gaussian kernel, three standard deviations to each side, that
            smooths each gradient (Dong et al. 2019 take 15); 0 is off.

    >>> MIFGSM(steps=5).decay
    1.0
    """

    steps: Count = 10
    step: Positive | None = None
    decay: NotNegative = 1.0
    loss: LossName = "margin"
    diversity: _Probability = 0.0
    shrink: Share = 0.9
    translation: _Side = 0

    def search(self, run: Run) -> Tensor | None:
        if (self.diversity or self.translation) and run.x.ndim != 4:
            raise UsageError(
                f"diversity and translation are for images (N, C, H, W), got inputs of shape {tuple(run.x.shape)}"
            )
        length = self.step or 2.5 / self.steps
        points, average = run.x, torch.zeros_like(run.x, dtype=torch.promote_types(run.x.dtype, torch.float32))
        for i in range(self.steps):
            slope = self._slope(run, points, i)
            points, average, slope = run.drop_solved(points, average, slope)
            if len(run.index) == 0:
                return None
            average = self.decay * average + _normalized(run.threat.masked(slope))
            points = run.step(points, _direction(average).to(points.dtype), length)
        return points

    def _slope(self, run: Run, points: Tensor, i: int) -> Tensor:
        """The gradient (A, *) at a view of the points, smoothed."""
        if self.diversity:
            down, across = _views(run.seeds, points, self.diversity, self.shrink, i)
            low = run.threat.bounds[0]
            _, slope = run.gradient(down @ (points - low) @ across + low, anywhere=True)
            slope = down.mT @ slope @ across.mT
        else:
            _, slope = run.gradient(points, anywhere=True)
        return _smoothed(slope, self.translation) if self.translation else slope


def _normalized(slope: Tensor) -> Tensor:
    """Slopes (N, *) whose absolute entries sum to 1, each sample by itself; at least in float32."""
    flat = _direction(slope.to(torch.promote_types(slope.dtype, torch.float32))).flatten(1)
    return (flat / flat.abs().sum(1, keepdim=True).clamp_min(1)).view_as(slope)


def _direction(values: Tensor) -> Tensor:
    """Values (N, *) with a largest entry of 1: their sums stay in range, whatever their type and scale."""
    flat = values.flatten(1)
    return (flat / flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)).view_as(values)


def _views(seeds: Tensor, images: Tensor, probability: float, shrink: float, draw: int) -> tuple[Tensor, Tensor]:
    """Matrices (N, 1, H, H) and (N, 1, W, W) that shrink and pad each image, by its own seed, or leave it."""
    # The same share of both sides; where the smaller image lies is drawn for each.
    share, above, left, whether = randomness.uniform(
        seeds, torch.empty(len(images), 4, dtype=wide(images.device), device=images.device), draw
    ).unbind(1)
    share = torch.where(whether < probability, shrink + (1 - shrink) * share, 1.0)
    down, across = (_resize(side, share, at) for side, at in zip(images.shape[-2:], (above, left)))
    return down.to(images.dtype), across.mT.to(images.dtype)


def _resize(side: int, share: Tensor, at: Tensor) -> Tensor:
    """Matrices (N, 1, S, S): bilinear resizing to a share of the side, zeros around it."""
    size = (share * side).floor().clamp_min(1)[:, None]  # (N, 1)
    offset = (at[:, None] * (side - size + 1)).floor()
    index = torch.arange(side, device=share.device, dtype=share.dtype)
    row = index - offset  # (N, S), rows of the smaller image
    source = ((row + 0.5) * side / size - 0.5).clamp(0, side - 1)
    weight = (1 - (source[:, :, None] - index).abs()).clamp_min(0)  # (N, S, S)
    within = (row >= 0) & (row < size)
    return torch.where(within[:, :, None], weight, 0.0)[:, None]


def _smoothed(slope: Tensor, side: int) -> Tensor:
    """Slopes (N, C, H, W), each channel under a normalized Gaussian kernel with zeros outside."""
    place = torch.linspace(-3, 3, side, device=slope.device, dtype=slope.dtype) if side > 1 else slope.new_zeros(1)
    kernel = torch.exp(-(place**2) / 2)
    kernel = kernel / kernel.sum()
    maps = slope.flatten(0, 1)[:, None]
    maps = F.conv2d(maps, kernel[None, None, :, None], padding=(side // 2, 0))
    return F.conv2d(maps, kernel[None, None, None, :], padding=(0, side // 2)).view_as(slope)
