"""Which pixels are salient: those of the largest values of a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from steadygrad.attributions.attribution import Attribution
from steadygrad.attributions.pixels import count_of, pictures, top
from steadygrad.classifier import frozen


def salient(model: nn.Module, x: Tensor, target: Tensor | None, saliency: Attribution, share: float) -> Tensor:
    """The `most_salient` pixels (N, H, W) of images (N, C, H, W) by the saliency of a class; leaves no trace.

    `target` are the classes (N,) to explain, None for the predicted ones.
    """
    if target is None:
        with frozen(model) as model, torch.no_grad():
            target = model(x).argmax(1)
    return most_salient(saliency(model, x, target), share)


def most_salient(maps: Tensor, share: float) -> Tensor:
    """The pixels (N, H, W) bool of the largest values of maps (N, C, H, W), a share of all.

    Among equals the lower index comes first, and pixels of value 0 are left out.

    >>> most_salient(torch.tensor([[[3.0, 0.0], [1.0, 2.0]]]), 0.5)
    tensor([[[ True, False],
             [False,  True]]])
    """
    values = pictures(maps)
    flat = values.flatten(1)
    return (top(flat, count_of(share, flat.shape[1])) & (flat > 0)).view_as(values)
