"""The only cache: finished shards of tables as Parquet files, found again by what they depend on."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from steadygrad.errors import Failure
from steadygrad.files import key
from steadygrad.measuring.table import Table


def place_of(name: str, title: str) -> str:
    """The folder of a table below that of the store: readable, and safe whatever the names are.

    >>> place_of("my cnn", "PGD, 30 steps")
    'my-cnn-638df7/PGD-30-steps-80f519'
    """
    return "/".join(f"{re.sub('[^A-Za-z0-9]+', '-', text)[:60].strip('-')}-{key(text)[:6]}" for text in (name, title))


class Store:
    """Shards of tables by key, in files below a folder, or in memory where there is none.

    Attributes:
        computed: how many shards were not there and had to be computed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.computed = folder, 0
        self._memory: dict[str, Table] = {}

    def get(self, place: str, name: str, compute: Callable[[], Table]) -> Table:
        """The shard of this name, computed and kept if it is not there yet or cannot be read."""
        if self.folder is None:
            if name not in self._memory:
                self._memory[name] = self._computed(compute)
            return self._memory[name]
        path = self.folder / place / f"{name}.parquet"
        if path.exists():
            try:
                return Table.read(path)
            except Failure as error:
                logging.getLogger("steadygrad").warning("%s is damaged and is made again (%s)", path, error.__cause__)
        table = self._computed(compute)
        table.write(path)
        return table

    def _computed(self, compute: Callable[[], Table]) -> Table:
        self.computed += 1
        return compute()

    def keep_only(self, place: str, names: Sequence[str]) -> None:
        """Remove the shards of a table that an earlier state of code, weights or data left."""
        if self.folder is not None:
            for path in (self.folder / place).glob("[!.]*.parquet"):
                if path.stem not in names:
                    path.unlink(missing_ok=True)

    def table(self, place: str) -> Table | None:
        """The table that all shards of a place make, in their order; None if there is none."""
        files = sorted((self.folder / place).glob("[!.]*.parquet")) if self.folder is not None else []
        return Table.join(map(Table.read, files)) if files else None
