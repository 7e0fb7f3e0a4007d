"""Training under Gaussian noise, which is what makes a model worth smoothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from steadygrad import randomness
from steadygrad.defenses.defense import DEFENSES, Defense, Step
from steadygrad.values import Positive


@DEFENSES.register(
    "gaussian_noise",
    summary="cross-entropy under Gaussian noise, for randomized smoothing with the same sigma",
    reference="Cohen, Rosenfeld and Kolter 2019, arXiv 1902.02918, section 3.3",
    cost="1 forward + 1 backward",
    order=0,
)
@dataclass(frozen=True)
class GaussianNoise(Defense):
    """Cross-entropy at x + n, n drawn anew for every batch; it is not clipped, as in `sg.RandomizedSmoothing`.

    Args:
        sigma: standard deviation of the noise, in units of the inputs.

    >>> GaussianNoise(0.25).sigma
    0.25
    """

    sigma: Positive
    fits = True

    def terms(self, step: Step) -> dict[str, Tensor]:
        noise = self.sigma * randomness.normal(step.seeds(), step.x)
        return {"gaussian_noise": F.cross_entropy(step.at(step.x + noise), step.y, reduction="none")}
