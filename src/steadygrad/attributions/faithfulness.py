"""Whether a map shows what the model uses: deletion, insertion, energy, sparsity, agreement; per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from steadygrad.arguments import Classes, Inputs, arithmetic, public
from steadygrad.attributions import similarity
from steadygrad.attributions.attribution import Attribution
from steadygrad.attributions.baselines import Baseline, of_inputs
from steadygrad.attributions.gradients import Saliency
from steadygrad.attributions.perturbation import BlurSaliency
from steadygrad.attributions.pixels import over_largest, pixel_maps
from steadygrad.attributions.salient import most_salient
from steadygrad.classifier import bounds_of, check_classes, check_inputs, check_logits, frozen, predict
from steadygrad.errors import UsageError, at_least_one
from steadygrad.precision import wide, widened

MEASURES = {
    "energy inside": True,
    "agreement": True,
    "gini": True,
    "deletion": False,
    "deletion gain": True,
    "insertion": True,
}
"""The measures of `faithfulness`, and whether more is better."""

RANGES = {name: (-1.0 if name in ("agreement", "deletion gain") else 0.0, 1.0) for name in MEASURES}
"""Between which values each of them lies."""

Fill = Baseline
Order = Literal["most", "least"]


@dataclass(frozen=True)
class Curve:
    """Probability of the class, `scores` (N, S + 1), where `shares` (S + 1,) of the pixels are replaced."""

    shares: Tensor
    scores: Tensor

    @property
    def area(self) -> Tensor:
        """Area (N,) under the curve by the trapezoidal rule, in [0, 1]."""
        area: Tensor = torch.trapezoid(self.scores, self.shares, dim=1)
        return area


@arithmetic
def deletion(
    model: nn.Module,
    x: Inputs,
    maps: Tensor,
    target: Classes | None = None,
    *,
    steps: int = 20,
    fill: Fill = 0.0,
    sigma: float = 5.0,
    order: Order = "most",
    signed: bool = False,
) -> Curve:
    """The curve from the image to an empty one; a faithful map makes the probability fall early: a small area.

    The most important pixels are replaced first, or the least important ones, under which the probability should
    stay as long as it can. Among equals the lower index comes first. Costs steps + 1 forwards per sample; leaves no
    trace.

    Args:
        maps: of the shape of x (N, *), or (N, H, W) for images.
        target: classes (N,); None for the predicted ones.
        steps: between no and all pixels.
        fill: what replaces a pixel, in units of the inputs: a value, one for each channel, an image, or "blur" for the
            blurred image.
        sigma: standard deviation of that blur, in pixels.
        order: "most" for the most important pixels first, "least" for the least important ones.
        signed: importance is the sum of the channels with their signs, so that pixels that speak against the class are
            the least important ones; else it is the sum of their absolute values.

    Source: Petsiuk et al. 2018, arXiv:1806.07421.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x = torch.rand(3, 1, 2, 2)
    >>> deletion(model, x, x, steps=4).scores.shape
    torch.Size([3, 5])
    """
    return _curve(model, x, maps, target, steps, fill, sigma, order, signed, insert=False)


@arithmetic
def insertion(
    model: nn.Module,
    x: Inputs,
    maps: Tensor,
    target: Classes | None = None,
    *,
    steps: int = 20,
    fill: Fill = "blur",
    sigma: float = 5.0,
    order: Order = "most",
    signed: bool = False,
) -> Curve:
    """The curve from an empty or blurred image to the image; a faithful map makes it rise early: a large area.

    Arguments, costs and source as for `deletion`.
    """
    return _curve(model, x, maps, target, steps, fill, sigma, order, signed, insert=True)


@arithmetic
def deletion_gain(
    model: nn.Module,
    x: Inputs,
    maps: Tensor,
    target: Classes | None = None,
    *,
    steps: int = 20,
    fill: Fill = 0.0,
    sigma: float = 5.0,
    signed: bool = False,
) -> Tensor:
    """The area (N,) under deletion of the least important pixels first, less that of the most important first.

    In [-1, 1]: about 0 for a map by chance and 1 at most for a faithful one. What the filled image does to every
    order alike falls out, unlike in either area. Costs 2 (steps + 1) forwards per sample; arguments as for `deletion`.

    Source: symmetric relevance gain, Blücher et al. 2024, arXiv:2405.08484.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x = torch.rand(3, 1, 2, 2)
    >>> deletion_gain(model, x, torch.ones(3, 1, 2, 2), steps=4).shape
    torch.Size([3])
    """
    target = predict(model, x)[0] if target is None else target
    least, most = (
        _curve(model, x, maps, target, steps, fill, sigma, order, signed, insert=False).area
        for order in ("least", "most")
    )
    return least - most


def _curve(
    model: nn.Module,
    x: Tensor,
    maps: Tensor,
    target: Tensor | None,
    steps: int,
    fill: Fill,
    sigma: float,
    order: str,
    signed: bool,
    insert: bool,
) -> Curve:
    check_inputs(x, target, bounds_of(model) or (-torch.inf, torch.inf))
    at_least_one(steps=steps)
    values = _signed(maps.detach()) if signed else pixel_maps(maps.detach())
    pixels = x.shape[-2] * x.shape[-1] if x.ndim == 4 else x[0].numel()
    if maps.shape[-2:] != x.shape[-2:] or values.shape != (len(x), pixels):
        raise UsageError(f"maps must have the shape of x {tuple(x.shape)}, got {tuple(maps.shape)}")
    places = values.sort(dim=1, descending=order == "most", stable=True).indices
    rank = torch.empty_like(places).scatter_(1, places, torch.arange(pixels, device=x.device).expand_as(places))
    rank = rank.view(len(x), 1, *x.shape[2:]) if x.ndim == 4 else rank.view_as(x)
    x = x.detach()
    first, last = (_filled(x, fill, sigma), x) if insert else (x, _filled(x, fill, sigma))
    chosen = predict(model, x)[0] if target is None else target.to(x.device)
    counts = [round(pixels * step / steps) for step in range(steps + 1)]
    scores: list[Tensor] = []
    with frozen(model) as model, torch.no_grad():
        for count in counts:
            logits = model(torch.where(rank < count, last, first))
            check_logits(logits, len(x))
            if not scores:
                check_classes(chosen, logits.shape[1], "target")
            scores.append(widened(logits).softmax(1).gather(1, chosen.long()[:, None])[:, 0])
    return Curve(torch.tensor(counts, dtype=wide(x.device), device=x.device) / pixels, torch.stack(scores, 1))


def _signed(maps: Tensor) -> Tensor:
    """One number per pixel (N, P): the sum of the channels with their signs."""
    return (maps.sum(1) if maps.ndim == 4 else maps).flatten(1)


def _filled(x: Tensor, fill: Fill, sigma: float) -> Tensor:
    return of_inputs(fill, x, sigma, "fill").expand_as(x)


@arithmetic
def energy_inside(maps: Tensor, region: Tensor) -> Tensor:
    """Share (N,) of the sum of squares of maps within a region (N, H, W) bool, in [0, 1]; 0 for a map of zeros.

    >>> energy_inside(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[True, False]]]))
    tensor([0.3600])
    """
    wanted = (len(maps), *maps.shape[-2:])
    if region.dtype != torch.bool or region.shape != wanted:
        got = f"{region.dtype} of shape {tuple(region.shape)}"
        raise UsageError(f"region must be bool of shape {wanted} for maps {tuple(maps.shape)}, got {got}")
    # Divided by the largest entry first: the squares of small gradients underflow in float32.
    squares = over_largest(maps.abs()).square()
    squares = squares.sum(1) if maps.ndim == 4 else squares  # (N, H, W)
    total = squares.sum((1, 2))
    return (squares * region).sum((1, 2)) / torch.where(total > 0, total, 1.0)


@arithmetic
def gini(maps: Tensor) -> Tensor:
    """Gini index (N,) of the pixel values: 0 where all are equal, towards 1 where one pixel has it all.

    A map of zeros counts as even. Channels and signs as in `similarity`.

    Source: Hurley and Rickard 2009, arXiv:0811.4706; for maps Chalasani et al. 2020, arXiv:1810.06583.

    >>> gini(torch.tensor([[0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]))
    tensor([0.7500, 0.0000])
    """
    values = over_largest(pixel_maps(maps)).sort(dim=1).values
    count = values.shape[1]
    # 1 - 2 sum of c_(k) / |c| (N - k + 1/2) / N, for values in rising order.
    weights = 2 * (count - torch.arange(1, count + 1, device=values.device) + 0.5) / count
    total = values.sum(1)
    return torch.where(total > 0, 1 - (values * weights).sum(1) / torch.where(total > 0, total, 1.0), 0.0)


@arithmetic
def pointing(maps: Tensor, boxes: list[Tensor], tolerance: int = 0) -> Tensor:
    """Whether the largest pixel (N,) of a map lies in one of the boxes, or at most `tolerance` rows and columns off.

    A map of zeros points nowhere.

    Args:
        boxes: one tensor (B, 4) per sample: top, left, bottom and right in pixels, the last two exclusive.

    Source: Zhang et al. 2016, arXiv:1608.00507.

    >>> pointing(torch.eye(3)[None] * torch.arange(3), [torch.tensor([[1, 1, 3, 3]])])
    tensor([True])
    """
    values = pixel_maps(maps)
    if len(boxes) != len(maps) or not all(b.ndim == 2 and b.shape[1] == 4 and len(b) for b in boxes):
        got = [tuple(b.shape) for b in boxes]
        raise UsageError(f"boxes must be {len(maps)} tensors (B, 4) with at least one box each, got shapes {got}")
    largest = values.argmax(1).tolist()
    hits = []
    for place, box, silent in zip(largest, boxes, (values.amax(1) == 0).tolist(), strict=True):
        pixel = box.new_tensor(divmod(place, maps.shape[-1]))  # row and column
        inside = ((pixel >= box[:, :2] - tolerance) & (pixel < box[:, 2:] + tolerance)).all(1)
        hits.append(bool(inside.any()) and not silent)
    return torch.tensor(hits, device=maps.device)


@public
def faithfulness(
    model: nn.Module,
    x: Inputs,
    attribution: Attribution | None = None,
    reference: Attribution | None = None,
    *,
    target: Classes | None = None,
    share: float = 0.2,
    steps: int = 20,
) -> dict[str, Tensor]:
    """The `MEASURES` (N,) of one attribution; they compare its map with what happens when pixels are replaced.

    "energy inside" is the share of its energy in the most salient pixels of the reference (by chance:
    `share`), "agreement" Spearman's rank correlation with the reference, "gini" its sparsity,
    "deletion" and "insertion" areas under curves, "deletion gain" that of `deletion_gain`. Leaves no trace.

    Args:
        attribution: what is judged; None for the gradient of the log odds, which has the direction of that
            of the log probability and does not vanish where the model is certain.
        reference: made of perturbations; None for `BlurSaliency()`.
        target: classes (N,); None for the predicted ones.
        share: of the pixels that count as salient.
    """
    target = predict(model, x)[0] if target is None else target
    maps = (attribution or Saliency(of="log_odds"))(model, x, target)
    salience = (reference or BlurSaliency())(model, x, target)
    return scores(model, x, maps, salience, target, share=share, steps=steps)


@arithmetic
def scores(
    model: nn.Module,
    x: Inputs,
    maps: Tensor,
    salience: Tensor,
    target: Classes,
    *,
    share: float = 0.2,
    steps: int = 20,
    fill: Fill = 0.0,
) -> dict[str, Tensor]:
    """`faithfulness` of maps (N, C, H, W), given those of a perturbation saliency; `fill` is that of `deletion`."""
    if salience.shape != maps.shape:
        raise UsageError(f"salience must have the shape of maps {tuple(maps.shape)}, got {tuple(salience.shape)}")
    most, least = (
        deletion(model, x, maps, target, steps=steps, fill=fill, order=order).area for order in ("most", "least")
    )
    return {
        "energy inside": energy_inside(maps, most_salient(salience, share)),
        "agreement": similarity.spearman(maps, salience),
        "gini": gini(maps),
        "deletion": most,
        "deletion gain": least - most,
        "insertion": insertion(model, x, maps, target, steps=steps).area,
    }
