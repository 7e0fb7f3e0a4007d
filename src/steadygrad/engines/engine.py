"""What an engine is: settings, and a block within which shards are computed."""

from __future__ import annotations

import abc
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from steadygrad.measuring.jobs import Work
from steadygrad.registry import Method, Registry

ENGINES: Registry[Engine] = Registry("engine", "changes no number")
_PIECE = 50
"""Samples per shard where several processes share them."""


@dataclass(frozen=True)
class Engine(Method, abc.ABC):
    """Who computes the shards of an audit. Subclasses are frozen dataclasses, registered in `ENGINES`."""

    joined: ClassVar[bool] = False
    """Whether processes that are started beside this one join it."""

    @property
    def together(self) -> bool:
        """Whether several processes write into the run folder, which there must be."""
        return self.joined

    @property
    def piece(self) -> int | None:
        """Samples per shard; None for those of each measure."""
        return _PIECE

    def check(self) -> None:
        """Refuse at once what cannot work on this machine."""

    @abc.abstractmethod
    def working(self, again: Callable[[], object]) -> AbstractContextManager[Work]:
        """The block of a run: within it the returned work computes shards.

        Args:
            again: makes the same run in another process, which joins this one.
        """
