"""All processes, here and on other machines, that are started on one folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from steadygrad.engines.engine import ENGINES
from steadygrad.engines.local import Local


@ENGINES.register(
    "shared",
    summary="all processes and machines that are given the same command and folder",
    reference="this library",
    cost="none",
    order=0,
)
@dataclass(frozen=True)
class Shared(Local):
    """Any number of processes that see one folder: each takes the shards that no other one has.

    >>> Shared().together
    True
    """

    joined: ClassVar[bool] = True

    @property
    def together(self) -> bool:
        return True
