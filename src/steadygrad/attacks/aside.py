"""Searching beside the record: for attacks that decide themselves which of their points counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from steadygrad.attacks.engine import Run

__all__ = ["aside"]


@contextlib.contextmanager
def aside(run: Run, loss: str) -> Iterator[Run]:
    """An unjudged run over the active samples of `run`; its passes are charged to that one.

    What it comes across is not remembered: the caller hands in the points that are to be judged.
    """
    inner = Run(run.model, run.x, run.y, run.threat, seeds=run.seeds, target=run.target, loss=loss, judged=False)
    yield inner
    run.forwards[run.index] += inner.forwards
    run.backwards[run.index] += inner.backwards
    run.zero_gradient[run.index] |= inner.zero_gradient
