"""The images, and the places in them, that change the output of a neuron most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad.arguments import Inputs, arithmetic, public
from steadygrad.classifier import frozen
from steadygrad.errors import UsageError, one_of
from steadygrad.neurons.recording import by_neuron, recorded
from steadygrad.neurons.sensitivity import CHUNK, changes


@dataclass(frozen=True)
class Movers:
    """The pairs that change a neuron most, the largest change first.

    Args:
        index: their positions (K,) in the batch.
        change: of the neuron (K,).
        boxes: top, left, bottom, right (K, 4) of the pixels that act on its most changed entry; ends exclusive.
    """

    index: Tensor
    change: Tensor
    boxes: Tensor

    @arithmetic
    def patches(self, images: Tensor) -> Tensor:
        """The boxes cut out of images (N, C, H, W), all as large as the largest: (K, C, h, w)."""
        size = (self.boxes[:, 2:] - self.boxes[:, :2]).amax(0)
        corner = self.boxes[:, :2].minimum(torch.tensor(images.shape[2:]) - size)
        height, width = size.tolist()
        places = zip(self.index.tolist(), corner.tolist(), strict=True)
        return torch.stack([images[i, :, top : top + height, left : left + width] for i, (top, left) in places])


@public
def movers(
    model: nn.Module, x: Inputs, x_adv: Inputs, layer: str, neuron: int, *, count: int = 9, chunk: int = CHUNK
) -> Movers:
    """The `count` pairs of images (N, C, H, W) that change a neuron most, and where in them.

    A box holds the pixels with a gradient, at x or at x_adv, to the entry of the neuron's map that changes
    most: the part of its receptive field that acts on it. It is the whole image where none does.

    Raises:
        UsageError: inputs that are no pairs of images, no such layer or neuron.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    >>> x, x_adv = torch.rand(2, 10, 1, 8, 8)
    >>> movers(model, x, x_adv, "1", 0, count=4).patches(x_adv).shape[:2]
    torch.Size([4, 1])
    """
    if x.ndim != 4 or count < 1:
        raise UsageError(f"movers needs images (N, C, H, W) and a count of at least 1, got {tuple(x.shape)}, {count}")
    found = changes(model, x, x_adv, layers=(layer,), chunk=chunk)
    one_of("layer", layer, found)
    if not 0 <= neuron < found[layer].shape[1]:
        raise UsageError(f"neuron must be within 0..{found[layer].shape[1] - 1} in layer {layer!r}, got {neuron}")
    moved = found[layer][:, neuron]
    index = torch.sort(moved, descending=True, stable=True).indices[:count]
    acting = [_acting(model, x[part], x_adv[part], layer, neuron) for part in torch.split(index, chunk)]
    return Movers(index.cpu(), moved[index].cpu(), _boxes(torch.cat(acting).cpu()))


def _acting(model: nn.Module, x: Tensor, x_adv: Tensor, layer: str, neuron: int) -> Tensor:
    """Which pixels (K, H, W) have a gradient to the entry of the neuron that moves most."""
    leaves = [inputs.detach().requires_grad_() for inputs in (x, x_adv)]
    with frozen(model) as model, torch.enable_grad(), recorded(model, (layer,)) as outputs:
        maps = []
        for leaf in leaves:
            model(leaf)
            maps.append(by_neuron(outputs[layer])[:, neuron])  # (K, entries)
        place = (maps[1] - maps[0]).abs().argmax(1, keepdim=True)
        slopes = torch.autograd.grad([m.gather(1, place).sum() for m in maps], leaves)
    return torch.stack([slope.ne(0).any(1) for slope in slopes]).any(0)


def _boxes(acting: Tensor) -> Tensor:
    """The smallest boxes (K, 4) around the marked pixels of masks (K, H, W)."""
    acting = acting | ~acting.flatten(1).any(1)[:, None, None]
    ends = []
    for axis in (2, 1):
        line = acting.any(axis).to(torch.int64)  # (K, H), then (K, W)
        ends.append((line.argmax(1), line.shape[1] - line.flip(1).argmax(1)))
    (top, bottom), (left, right) = ends
    return torch.stack([top, left, bottom, right], 1)
