"""The standard suite of Croce and Hein 2020 (arXiv 2003.01690): its four algorithms, one after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import gates
from oracles import apgd, fab, square

MEMBERS = ("apgd-ce", "apgd-t", "fab-t", "square")


def fooled(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: str, *, steps: int = 100, queries: int = 5000
) -> tuple[Tensor, int]:
    """The member (N,) that breaks each sample, -1 for a clean mistake and 4 for none; and all passes spent.

    Each member runs on the samples that stood up to those before it. Passes are forwards plus
    backwards, summed over the samples, as a hook on the model counts them.
    """
    with gates.counted(model) as spent:
        with torch.no_grad():
            by = torch.where(model(x).argmax(1) != y, -1, len(MEMBERS))
        for number, attack in enumerate(
            (
                lambda x, y: apgd.fooled(model, x, y, eps, norm, steps=steps),
                lambda x, y: apgd.fooled_at_targets(model, x, y, eps, norm, targets=9, steps=steps),
                lambda x, y: fab.distances(model, x, y, norm, targets=9, eps=eps, steps=steps) <= eps,
                lambda x, y: square.fooled(model, x, y, eps, norm, queries=queries),
            )
        ):
            left = (by == len(MEMBERS)).nonzero().squeeze(1)
            if len(left):
                by[left] = torch.where(attack(x[left], y[left]), number, len(MEMBERS))
    return by, spent["samples"] + spent["samples_back"]
