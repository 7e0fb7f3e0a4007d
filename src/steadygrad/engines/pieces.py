"""Pieces of work that are not shards of a table, such as trainings, divided among processes that see one folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from steadygrad.files import PARTIAL
from steadygrad.heartbeats import claimed
from steadygrad.locks import InUse, check_there

_LOOK = 0.2
"""Seconds between two looks at pieces that others do."""


def divided(folder: Path, pieces: Iterable[str], do: Callable[[str], object]) -> None:
    """Do all pieces that no other process does, and wait for those; at the end all are done.

    The marks of what is done in this run go with the unfinished files of its folder, so that a later run looks again.
    """
    left = list(pieces)
    while left:
        elsewhere = []
        for name in left:
            done = folder / f"{PARTIAL}done-{name}"
            check_there(folder)
            with claimed(folder / f"{PARTIAL}doing-{name}") as dead:
                if dead is None:
                    elsewhere.append(name)
                elif not done.exists():
                    try:
                        do(name)
                        done.touch()
                    except InUse:  # its process fell silent, and is awake again
                        elsewhere.append(name)
        if len(elsewhere) == len(left):
            time.sleep(_LOOK)
        left = elsewhere
