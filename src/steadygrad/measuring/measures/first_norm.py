"""Whether what reaches the first batch normalization is like what it saw in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from steadygrad.classifier import frozen
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.measuring.table import Table
from steadygrad.precision import widened


@MEASURES.register(
    "first_norm",
    summary="how far the input of the first batch normalization is from what it saw in training",
    reference="Ioffe and Szegedy 2015, arXiv 1502.03167",
    cost="one forward",
    order=0,
)
@dataclass(frozen=True)
class FirstNorm(Measure):
    """Writes `mean` and `square` (n, C): of (x - running mean) / running std, over the places of each channel.

    Over samples like those of the training they average to 0 and 1. A model without batch normalization, or one that
    cannot be looked into, has one channel of NaN.
    """

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        seen: list[tuple[Tensor, Tensor]] = []

        def look(module: nn.Module, args: Any) -> None:
            if seen or not isinstance(args[0], Tensor) or len(args[0]) < len(batch.x):
                return
            x = widened(args[0][: len(batch.x)].detach())  # a batch may have been filled up
            x = x.flatten(2) if x.ndim > 2 else x[:, :, None]
            middle, spread = (
                widened(cast(Tensor, value))[:, None] for value in (module.running_mean, module.running_var)
            )
            z = (x - middle) / (spread + cast(float, module.eps)).sqrt()
            seen.append((z.mean(2), z.square().mean(2)))

        norms = [m for m in models[0].modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
        hooks = [norm.register_forward_pre_hook(look) for norm in norms]
        try:
            with frozen(models[0], batch.seeds) as model, torch.no_grad():
                model(batch.x)
        finally:
            for hook in hooks:
                hook.remove()
        nothing = torch.full((len(batch.x), 1), torch.nan, dtype=torch.float64)
        mean, square = seen[0] if seen else (nothing, nothing)
        return {"mean": mean, "square": square}


def shift(table: Table) -> tuple[float, float]:
    """Of the channels, the median distance of the mean from 0, and the median spread, both in running std.

    NaN without batch normalization.
    """
    mean, square = table["mean"].mean(0), table["square"].mean(0)
    return float(np.median(np.abs(mean))), float(np.median((square - mean**2).clip(0) ** 0.5))
