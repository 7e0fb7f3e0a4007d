"""Is the model one function? The same input twice, tiny noise, and derivatives taken inside its forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from steadygrad import randomness
from steadygrad.attacks.expectation import base_of, draws_of
from steadygrad.classifier import frozen
from steadygrad.evaluation.robustness import Bench
from steadygrad.evaluation.verdict import Check, share_check

__all__ = ["deterministic", "no_derivatives", "steady"]

_NOISE = 1e-3
_NOISES = 3


def deterministic(bench: Bench, model: nn.Module, count: int) -> Check:
    """Whether the same input gives the same logits; for a mean over draws, the same prediction.

    Only what differs between calls is seen: numbers drawn in a fixed order, or from the input, are not.
    """
    name, differing, flipped = "deterministic", 0, 0
    averaged = base_of(model) is not model
    for x, _, ids in bench.batches(0, count):
        with frozen(model, bench.seeds({"repeated": True}, ids)), torch.no_grad():
            first, *others = [model(x) for _ in range(2 if averaged else 3)]
        room = 64 * torch.finfo(first.dtype).eps * first.abs().amax(1)
        away = torch.stack([(first - other).abs().amax(1) > room for other in others]).any(0)
        turned = torch.stack([first.argmax(1) != other.argmax(1) for other in others]).any(0)
        differing, flipped = differing + int(away.sum()), flipped + int(turned.sum())
    if averaged:
        text = (
            f"the model is random, and its mean over {draws_of(model)} draws, which was attacked in its place, changes "
            f"the prediction of {100 * flipped / count:.1f} % of the samples when drawn again"
        )
        return share_check(name, flipped, count, text)
    text = (
        f"the same input gives other logits for {100 * differing / count:.1f} % of the samples"
        if differing
        else "the same input gives the same logits each time"
    )
    return Check(name, differing == 0, differing / count, "no sample", text)


def steady(bench: Bench, model: nn.Module, bounds: tuple[float, float], count: int) -> Check:
    """Whether noise of a thousandth of the range turns predictions that the model is sure of.

    Sure are the half of the samples with the largest gap between the two largest logits, which no
    constant factor on the logits changes.
    """
    gaps, turned = [], []
    for x, _, ids in bench.batches(0, count):
        seeds = bench.seeds({"noise": _NOISE}, ids)
        with frozen(model, seeds), torch.no_grad():
            logits = model(x)
            two = logits.double().topk(2, dim=1).values
            flips = torch.zeros(len(x), dtype=torch.bool, device=x.device)
            for draw in range(_NOISES):
                noise = _NOISE * (bounds[1] - bounds[0]) * (2 * randomness.uniform(seeds, x, draw) - 1)
                flips |= model((x + noise).clamp(*bounds)).argmax(1) != logits.argmax(1)
        gaps.append((two[:, 0] - two[:, 1]).cpu())
        turned.append(flips.cpu())
    order = torch.cat(gaps).argsort(descending=True, stable=True)
    sure = torch.cat(turned)[order[: max(1, (len(order) + 1) // 2)]]
    text = (
        f"noise of a thousandth of the range turns {100 * float(sure.float().mean()):.1f} % of the surest predictions"
    )
    return share_check("steady under tiny noise", int(sure.sum()), len(sure), text)


def no_derivatives(bench: Bench, model: nn.Module) -> Check:
    """Whether a prediction takes no derivatives itself, as defenses that optimize at test time do.

    Calls of `autograd.grad` and `backward` by PyTorch's own names are seen; loops that optimize without
    derivatives, and models that run outside PyTorch, are not.
    """
    x, _, ids = next(iter(bench.batches(0, min(2, len(bench.data)))))
    watch = _Watch()
    with frozen(model, bench.seeds({}, ids)), torch.no_grad(), watch:
        model(x)
    text = (
        f"a prediction takes {watch.seen} derivatives of its own: it may optimize against the attack"
        if watch.seen
        else "a prediction takes no derivatives of its own"
    )
    return Check("no derivative in the forward", watch.seen == 0, float(watch.seen), "none", text)


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
