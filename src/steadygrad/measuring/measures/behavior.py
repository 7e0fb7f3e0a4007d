"""Whether a model is one function: the same input twice, tiny noise, and derivatives taken inside its forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from steadygrad import randomness
from steadygrad.attacks.expectation import draws_of
from steadygrad.classifier import frozen
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.precision import widened


@MEASURES.register(
    "repeated",
    summary="whether the same input gives the same logits, and the same prediction, when asked again",
    reference="Carlini et al. 2019, arXiv 1902.06705",
    cost="three forwards",
    order=0,
)
@dataclass(frozen=True)
class Repeated(Measure):
    """Writes whether the logits `differ` and whether the prediction `flips`.

    Only what differs between calls is seen: numbers drawn in a fixed order, or from the input, are not.
    """

    titled: ClassVar[str] = "the same input again"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x = models[0], batch.x
        with frozen(model, batch.seeds), torch.no_grad():
            first, *others = [model(x) for _ in range(2 if draws_of(model) > 1 else 3)]
        room = 64 * torch.finfo(first.dtype).eps * first.abs().amax(1)
        return {
            "differs": torch.stack([(first - other).abs().amax(1) > room for other in others]).any(0),
            "flips": torch.stack([first.argmax(1) != other.argmax(1) for other in others]).any(0),
        }


@MEASURES.register(
    "noise_turned",
    summary="whether tiny noise turns the prediction, and how sure it was",
    reference="Croce et al. 2022, arXiv 2202.13711",
    cost="a forward, and one for each draw",
    order=0,
)
@dataclass(frozen=True)
class NoiseTurned(Measure):
    """Writes the `gap` between the two largest logits and whether uniform noise `turned` the prediction.

    Args:
        bounds: of the inputs.
        size: of the noise, as a share of their range.
        draws: points per sample.
    """

    bounds: tuple[float, float] = (0.0, 1.0)
    size: float = 1e-3
    draws: int = 3

    titled: ClassVar[str] = "tiny noise"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x, (low, high) = models[0], batch.x, self.bounds
        with frozen(model, batch.seeds), torch.no_grad():
            logits = model(x)
            two = widened(logits).topk(2, dim=1).values
            turned = torch.zeros(len(x), dtype=torch.bool, device=x.device)
            for draw in range(self.draws):
                noise = self.size * (high - low) * (2 * randomness.uniform(batch.seeds, x, draw) - 1)
                turned |= model((x + noise).clamp(low, high)).argmax(1) != logits.argmax(1)
        return {"gap": two[:, 0] - two[:, 1], "turned": turned}


@MEASURES.register(
    "derivatives_taken",
    summary="how many derivatives a prediction takes itself, as defenses that optimize at test time do",
    reference="Croce et al. 2022, arXiv 2202.13711",
    cost="one forward",
    order=0,
)
@dataclass(frozen=True)
class DerivativesTaken(Measure):
    """Writes the number of calls of `autograd.grad` and `backward` during a forward of the batch.

    Loops that optimize without derivatives, and models that run outside PyTorch, are not seen.
    """

    titled: ClassVar[str] = "derivatives in the forward"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        watch = _Watch()
        with frozen(models[0], batch.seeds), torch.no_grad(), watch:
            models[0](batch.x)
        return {"derivatives": torch.full((len(batch.x),), watch.seen)}


class _Watch(TorchFunctionMode):
    """Counts the calls that take derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.autograd.grad, torch.autograd.backward, Tensor.backward):
            self.seen += 1
        return func(*args, **(kwargs or {}))
