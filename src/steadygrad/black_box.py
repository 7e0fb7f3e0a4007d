"""A function on arrays as a model: a session of ONNX Runtime, a service, a model of another library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad.errors import UsageError
from steadygrad.precision import moved


class BlackBox(nn.Module):
    """A function from an array (N, *) to logits (N, K) as a model without gradients.

    What needs no gradient takes it: the attacks `Square` and `RandomNoise`, maps made of perturbations, measures of
    noise, `evaluate`, and `audit`, which searches it blind. What follows gradients refuses it.

    Args:
        function: takes a NumPy array (N, *) of float32 and returns an array, a tensor or lists of numbers (N, K); or a
            session of ONNX Runtime with one input, whose first output counts.
        probabilities: the function returns probabilities, whose logarithms are taken as logits.

    >>> model = BlackBox(lambda x: x.reshape(len(x), -1)[:, :3])
    >>> model(torch.rand(2, 1, 2, 2)).shape
    torch.Size([2, 3])
    """

    opaque = True  # its code and weights cannot be read

    def __init__(self, function: Callable[[Any], Any] | Any, *, probabilities: bool = False) -> None:
        super().__init__()
        if not callable(function) and not (hasattr(function, "run") and hasattr(function, "get_inputs")):
            raise UsageError(
                "function must take an array (N, *) and return logits (N, K), or be a session of ONNX Runtime, got "
                f"{type(function).__name__}"
            )
        self.function, self.probabilities = function, probabilities

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *), without a graph."""
        array = x.detach().cpu().float().numpy()
        if callable(self.function):
            found = self.function(array)
        else:
            found = self.function.run(None, {self.function.get_inputs()[0].name: array})[0]
        try:
            values = (
                found.detach() if isinstance(found, Tensor) else torch.from_numpy(np.array(found, dtype=np.float64))
            )
        except (TypeError, ValueError) as error:
            raise UsageError(f"the function must return numbers (N, K), got {type(found).__name__}: {error}") from error
        values = moved(values, x.device)
        if not self.probabilities:
            return values.float() if values.dtype != torch.float64 else values
        if bool((values < 0).any()) or bool((values > 1 + 1e-4).any()):
            raise UsageError("the function returns values outside of [0, 1]: these are no probabilities")
        return values.clamp_min(torch.finfo(torch.float32).tiny).log()
