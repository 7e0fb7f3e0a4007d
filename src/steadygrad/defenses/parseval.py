"""Parseval training: weight matrices near tight frames, so that no layer lengthens its input much."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad.calling import unwrap
from steadygrad.defenses.defense import DEFENSES, Defense, Step
from steadygrad.errors import UsageError
from steadygrad.values import NotNegative

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@DEFENSES.register(
    "parseval",
    summary="penalty that keeps the weight matrices of linear and convolutional layers near tight frames",
    reference="Cisse et al. 2017, arXiv 1704.08847; as a penalty: Yan, Guo and Zhang 2018, arXiv 1803.00404",
    cost="no pass; one product of each weight matrix with itself per step",
    order=0,
)
@dataclass(frozen=True)
class Parseval(Defense):
    """weight / 2 x the sum over layers of ||W Wᵀ - I||² (Frobenius), or of ||Wᵀ W - I||² where that is smaller.

    The two differ by a constant, and only the product of the smaller side can reach the identity. W
    is (outputs, inputs) in linear layers and (channels out, channels in x kernel) in convolutions, one
    matrix per group. All other weights (norms, embeddings, biases, fused attention) are left out.

    Args:
        weight: of the penalty, beta in the papers.
        scaled: ask a convolution for I / (entries of its kernel), with which the layer as a whole
            does not stretch its input (Cisse et al.), instead of I.

    Raises:
        UsageError: a negative weight, or a network without such layers.

    >>> Parseval(1e-3)
    Parseval(weight=0.001, scaled=False)
    """

    weight: NotNegative
    scaled: bool = False

    def terms(self, step: Step) -> dict[str, Tensor]:
        found = frames(step.model)
        if not found:
            raise UsageError("parseval needs a network with linear or convolutional layers, and this one has none")
        # A product in half precision would be off by more than well-kept frames are.
        with torch.autocast(step.x.device.type, enabled=False):
            gaps = [_gap(frame, 1 / entries if self.scaled else 1.0) for frame, entries in found]
            penalty = 0.5 * self.weight * torch.stack(gaps).sum()
        return {"parseval": penalty.expand(len(step.y))}


def frames(model: nn.Module) -> list[tuple[Tensor, int]]:
    """The weights of linear and convolutional layers as matrices (groups, R, C), with the entries of a kernel.

    A weight that several layers share is there once.

    >>> [tuple(frame.shape) for frame, _ in frames(nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Linear(5, 3)))]
    [(2, 3, 18), (1, 3, 5)]
    """
    found: dict[int, tuple[Tensor, Tensor, int]] = {}
    for module in unwrap(model).modules():
        if isinstance(module, nn.Linear):
            weight, groups, entries = module.weight, 1, 1
        elif isinstance(module, _CONVOLUTIONS):
            weight, groups, entries = module.weight, module.groups, math.prod(module.kernel_size)
        else:
            continue
        # The first axis of a transposed convolution is its input: the matrix is that of the map it transposes.
        # The weight itself is kept as well: a computed one would leave its id to the next.
        found[id(weight)] = weight, weight.reshape(groups, len(weight) // groups, -1), entries
    return [(frame, entries) for _, frame, entries in found.values()]


def _gap(frame: Tensor, target: float) -> Tensor:
    """Sum over groups of ||G - target I||², G the smaller of the two products of a matrix (groups, R, C)."""
    frame = frame.float() if frame.dtype.itemsize < 4 else frame
    rows, columns = frame.shape[1:]
    wide = frame if rows <= columns else frame.mT
    product = wide @ wide.mT
    identity = target * torch.eye(len(product[0]), dtype=product.dtype, device=product.device)
    return (product - identity).square().sum()
