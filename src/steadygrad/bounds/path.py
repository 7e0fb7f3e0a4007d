"""The common form of saliency and integrated gradients, which both kinds of bound rest on.

g(x) = s(x) * h(x),  h(x) = sum_k w_k grad F(b + a_k (x - b)),  s(x) = x - b or 1.

Its Jacobian is diag(s' h) + diag(s) sum_k w_k a_k H_k with the Hessians H_k of F at the points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steadygrad.attributions.attribution import Attribution, Of
from steadygrad.attributions.baselines import of_inputs
from steadygrad.attributions.gradients import InputXGradient, IntegratedGradients, Saliency, gauss_legendre
from steadygrad.errors import UsageError


@dataclass(frozen=True)
class Path:
    """An attribution as a weighted sum of gradients at points between a baseline and the input."""

    of: Of  # the score F
    nodes: tuple[float, ...] = (1.0,)  # where the points lie, a_k in [0, 1]; 1 is the input itself
    weights: tuple[float, ...] = (1.0,)  # w_k
    baseline: float | tuple[float, ...] | str = 0.0  # b, as of integrated gradients, the same for every input
    scaled: bool = False  # whether the sum is multiplied by x - b

    def points(self, x: Tensor) -> Tensor:
        """The points (K, N, *) of inputs (N, *)."""
        nodes = torch.tensor(self.nodes, dtype=x.dtype, device=x.device)
        baseline = self.base(x)
        return baseline + nodes.view(-1, *[1] * x.ndim) * (x - baseline)

    def scale(self, x: Tensor) -> Tensor:
        """s(x), (N, *)."""
        return x - self.base(x) if self.scaled else torch.ones_like(x)

    def base(self, x: Tensor) -> Tensor:
        """b, a tensor that broadcasts with inputs (N, *)."""
        return of_inputs(self.baseline, x)


def path_of(attribution: Attribution) -> Path:
    """The path of an attribution that has bounds; UsageError for any other, and for the log odds."""
    kind = type(attribution)
    if getattr(attribution, "of", None) == "log_odds":
        raise UsageError("there are no bounds for of='log_odds': take 'log_probability', whose maps point the same way")
    if kind is Saliency:
        return Path(attribution.of)  # type: ignore[attr-defined]
    if kind is InputXGradient:
        return Path(attribution.of, scaled=True)  # type: ignore[attr-defined]
    if isinstance(attribution, IntegratedGradients) and kind is IntegratedGradients:
        if attribution.baseline == "blur":
            raise UsageError(
                "there are no bounds for baseline='blur', which changes with the input: give a number, one for each "
                "channel, or an image"
            )
        nodes, weights = gauss_legendre(attribution.steps)
        return Path(attribution.of, tuple(nodes), tuple(weights), attribution.baseline, True)
    known = "they exist for Saliency, InputXGradient and IntegratedGradients"
    raise UsageError(f"there are no bounds for {kind.__name__}: {known}")
