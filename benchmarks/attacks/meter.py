"""Counting passes from outside and timing them against a bare pass: the same for every library."""

from __future__ import annotations

import contextlib
import io
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Lap", "Meter", "bare", "clock", "quiet"]

# A single pass is too short to be timed alone.
_BARE_CALLS, _BARE_SECONDS = 5, 0.1


class Meter(nn.Module):
    """A model that counts the rows which pass through it forwards and backwards.

    A call with N inputs counts N forwards. Each traversal backwards from its logits counts N
    backwards, whichever rows it asks for, so a Jacobian taken row by row counts one for each class.

    >>> meter = Meter(nn.Linear(3, 2))
    >>> meter(torch.zeros(4, 3)).sum().backward()
    >>> meter.forwards, meter.backwards
    (4, 4)
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0
        self.train(model.training)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *), as the model gives them."""
        logits: Tensor = self.model(x)
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(self._count)  # type: ignore[no-untyped-call]
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)

    def reset(self) -> None:
        """Begin to count anew."""
        self.forwards = self.backwards = 0


@dataclass(frozen=True)
class Lap:
    """One timed run beside the bare passes around it, in seconds: of the clock and of the processor."""

    seconds: float
    cpu: float
    bare_seconds: float
    bare_cpu: float

    @property
    def ratio(self) -> float:
        """How many bare passes the run took, by the clock."""
        return self.seconds / self.bare_seconds

    @property
    def cpu_ratio(self) -> float:
        """The same by the time of the processor, which a busy machine changes less."""
        return self.cpu / self.bare_cpu


def clock(x: Tensor, work: Callable[[], Tensor]) -> tuple[float, float, Tensor]:
    """Seconds by the clock and by the processor that the work took, and what it returned."""
    _wait(x)
    start, cpu = time.perf_counter(), time.process_time()
    made = work()
    _wait(x)
    return time.perf_counter() - start, time.process_time() - cpu, made


def bare(model: nn.Module, x: Tensor) -> tuple[float, float]:
    """Median seconds, by the clock and by the processor, of one forward and one input-only backward of x (N, *)."""
    points = x.detach().requires_grad_()

    def once() -> Tensor:
        (slope,) = torch.autograd.grad(model(points).sum(), points)
        return slope

    laps: list[tuple[float, float]] = []
    while len(laps) < _BARE_CALLS or sum(lap[0] for lap in laps) < _BARE_SECONDS:
        laps.append(clock(x, once)[:2])
    seconds, cpu = (statistics.median(times) for times in zip(*laps, strict=True))
    # The clock of the processor is too coarse for the shortest passes.
    return seconds, cpu or sum(lap[1] for lap in laps) / len(laps) or seconds


def _wait(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)


@contextlib.contextmanager
def quiet(seed: int) -> Iterator[None]:
    """Where code of others runs: its global random numbers are seeded and put back, its prints and warnings dropped."""
    others, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count()))
    with (
        torch.random.fork_rng(devices),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(others)
            np.random.set_state(arrays)  # noqa: NPY002
