"""The box around the inputs that a threat allows."""

from __future__ import annotations

import torch
from torch import Tensor

from steadygrad.threat import Threat, per_sample


def allowed_box(x: Tensor, threat: Threat) -> tuple[Tensor, Tensor]:
    """The smallest box (N, *), (N, *) around the allowed inputs: within eps of x, the mask and the bounds."""
    eps = threat.masked(per_sample(threat.radius(x), x).expand_as(x))
    low, high = (torch.full_like(x, bound) for bound in threat.bounds)
    return torch.maximum(x - eps, low).minimum(x), torch.minimum(x + eps, high).maximum(x)
