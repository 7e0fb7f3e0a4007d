"""MI-FGSM for one sample, from the formulas of Dong et al. 2018 and 2019 and Xie et al. 2019."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import signal, stats
from torch import Tensor, nn

Array = NDArray[np.float64]


def view(image: Tensor, draw: Array, probability: float, shrink: float) -> Tensor:
    """An image (1, C, S, S), shrunk and padded with zeros as the four numbers `draw` say, or as it is."""
    share, above, left, whether = draw
    if whether >= probability:
        return image
    side = image.shape[-1]
    size = int((shrink + (1 - shrink) * share) * side)
    top, start = int(above * (side - size + 1)), int(left * (side - size + 1))
    small = F.interpolate(image, size=(size, size), mode="bilinear", align_corners=False)
    return F.pad(small, (start, side - size - start, top, side - size - top))


def smoothed(slope: Array, side: int) -> Array:
    """Each channel (C, H, W) convolved with the normalized Gaussian kernel of three deviations to each side."""
    line = stats.norm.pdf(np.linspace(-3, 3, side))
    kernel = np.outer(line, line) / np.outer(line, line).sum()
    return np.stack([signal.convolve2d(channel, kernel, mode="same") for channel in slope])


def climb(
    model: nn.Module,
    x: Array,
    y: int,
    target: int | None,
    *,
    eps: float,
    norm: str,
    steps: int,
    decay: float,
    loss: str = "margin",
    draws: Array | None = None,
    probability: float = 0.0,
    shrink: float = 1.0,
    kernel: int = 0,
) -> Array:
    """The point after `steps` steps of eps / steps; `draws` (steps, 4) are the random numbers of the views."""
    point, average = x.copy(), np.zeros_like(x)
    label = y if target is None else target
    for i in range(steps):
        leaf = torch.from_numpy(point)[None].requires_grad_()
        logits = model(leaf if draws is None else view(leaf, draws[i], probability, shrink))[0]
        if loss == "ce":
            value = -logits.log_softmax(0)[label]
        else:
            value = max((z for k, z in enumerate(logits) if k != label), key=lambda z: z.item()) - logits[label]
        slope = torch.autograd.grad(value if target is None else -value, leaf)[0][0].numpy()
        slope = smoothed(slope, kernel) if kernel else slope
        average = decay * average + slope / np.abs(slope).sum()
        if norm == "linf":
            point = np.clip(point + eps / steps * np.sign(average), x - eps, x + eps)
        else:
            change = point + eps / steps * average / np.sqrt((average**2).sum()) - x
            point = x + change * min(1.0, eps / np.sqrt((change**2).sum()))
        point = np.clip(point, 0, 1)
    return point
