"""Processes of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from steadygrad.engines.engine import ENGINES, Engine
from steadygrad.engines.helpers import helped
from steadygrad.measuring.jobs import Work
from steadygrad.values import Count


@ENGINES.register(
    "local",
    summary="this process, or so many of this machine",
    reference="this library",
    cost="none",
    order=0,
)
@dataclass(frozen=True)
class Local(Engine):
    """This process, helped by `workers` - 1 others, which share its threads.

    >>> Local(workers=2).together
    True
    """

    workers: Count = 1

    @property
    def together(self) -> bool:
        return self.workers > 1

    @property
    def piece(self) -> int | None:
        return super().piece if self.together else None

    @contextlib.contextmanager
    def working(self, again: Callable[[], object]) -> Iterator[Work]:
        with helped(self.workers - 1, again):
            yield Work()
