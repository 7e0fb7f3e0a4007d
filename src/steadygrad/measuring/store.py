"""The only cache: finished shards of tables as Parquet files, found again by what they depend on."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from steadygrad.errors import Failure
from steadygrad.files import PARTIAL, atomic, key
from steadygrad.heartbeats import claimed
from steadygrad.locks import check_there
from steadygrad.measuring.table import Table

_DEATHS = 2
"""Processes that may end while they compute a shard before it is given up."""


def place_of(name: str, title: str) -> str:
    """The folder of a table below that of the store: readable, and safe whatever the names are.

    >>> place_of("my cnn", "PGD, 30 steps")
    'my-cnn-638df7/PGD-30-steps-80f519'
    """
    return "/".join(f"{re.sub('[^A-Za-z0-9]+', '-', text)[:60].strip('-')}-{key(text)[:6]}" for text in (name, title))


class Store:
    """Shards of tables by key, in files below a folder, or in memory where there is none.

    The name of a file ends with the hash of its content, so that damage is found out before anything reads it.

    Args:
        together: other processes compute shards in the same folder.

    Attributes:
        computed: how many shards were not there and had to be computed.
    """

    def __init__(self, folder: Path | None = None, *, together: bool = False) -> None:
        self.folder, self.together, self.computed = folder, together, 0
        self._memory: dict[str, Table] = {}
        self._known: dict[str, dict[str, list[Path]]] = {}

    def get(self, place: str, name: str, compute: Callable[[], Table]) -> Table | None:
        """The shard of this name, computed and kept if it is not there yet or cannot be read.

        None while another process computes it.
        """
        found = self.read(place, name)
        if found is not None:
            return found
        with self._claimed(place, name) as mine:
            if not mine:
                return None
            if self.together:  # it may have come in the meantime
                self.forget(place)
                found = self.read(place, name)
            if found is None:
                found = compute()
                self.keep(place, name, found)
            return found

    def keep(self, place: str, name: str, table: Table) -> None:
        """Keep a shard that was not there and has been computed."""
        self.computed += 1
        if self.folder is None:
            self._memory[name] = table
        else:
            self.put(place, name, table)

    @contextlib.contextmanager
    def _claimed(self, place: str, name: str) -> Iterator[bool]:
        """Whether this process computes the shard: a claim keeps all others away."""
        if not self.together or self.folder is None:
            yield True
            return
        check_there(self.folder)
        (self.folder / place).mkdir(parents=True, exist_ok=True)
        # What a kill leaves of it goes as unfinished files do.
        with claimed(self.folder / place / f"{PARTIAL}{name}") as dead:
            if dead is not None and dead >= _DEATHS:
                raise Failure(
                    f"{dead} processes ended, or fell silent, while they computed this: has the machine enough memory? "
                    "What is finished is kept; run the same command again to try once more"
                )
            yield dead is not None

    def read(self, place: str, name: str) -> Table | None:
        """The shard of this name; None where there is none, or a damaged one, which a line tells."""
        if self.folder is None:
            return self._memory.get(name)
        for path in self._named(place).get(name, ()):
            try:
                return _sound(path)
            except FileNotFoundError:  # another process has replaced it
                self.forget(place)
            except (OSError, Failure) as error:
                logging.getLogger("steadygrad").warning("%s is damaged and is made again (%s)", path, error)
        return None

    def forget(self, place: str) -> None:
        """Look again which shards of a table there are, since others may have made some."""
        self._known.pop(place, None)

    def has(self, place: str) -> bool:
        """Whether any shard of a table is there, sound or not."""
        return bool(self._named(place))

    def put(self, place: str, name: str, table: Table) -> None:
        """Keep a shard under this name, instead of what was there."""
        assert self.folder is not None
        data = table.encoded()
        path = self.folder / place / f"{name}-{_hash(data)}.parquet"
        with atomic(path) as temporary:
            temporary.write_bytes(data)
        if self.together:
            self.forget(place)
        there = [other for other in self._named(place).get(name, []) if other != path]
        # Where two processes made one shard, both have to leave the same one.
        best = min([path, *(other for other in there if self.together and _is_sound(other))])
        for other in (path, *there):
            if other != best:
                other.unlink(missing_ok=True)
        self._named(place)[name] = [best]

    def keep_only(self, place: str, names: Sequence[str]) -> None:
        """Remove the shards of a table that an earlier state of code, weights or data left."""
        wanted, known = set(names), self._named(place)
        for name in [name for name in known if name not in wanted]:
            for path in known.pop(name):
                path.unlink(missing_ok=True)

    def table(self, place: str) -> Table | None:
        """The table that all shards of a place make, in their order; None if there is none.

        Raises:
            Failure: a shard is damaged.
        """
        self.forget(place)
        parts = []
        for _, (path, *_) in sorted(self._named(place).items()):
            try:
                parts.append(_sound(path))
            except (OSError, Failure) as error:
                raise Failure(
                    f"{path} is damaged ({error}): run the same command again to have it made anew"
                ) from error
        return Table.join(parts) if parts else None

    def _named(self, place: str) -> dict[str, list[Path]]:
        """The files of the shards of a table, by their name, as they were when they were listed."""
        if place not in self._known:
            found: dict[str, list[Path]] = {}
            self._known[place] = found
            for path in sorted((self.folder / place).glob("[!.]*.parquet")) if self.folder is not None else ():
                found.setdefault(_name_of(path), []).append(path)
        return self._known[place]


def _name_of(path: Path) -> str:
    return path.stem.rpartition("-")[0]


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _is_sound(path: Path) -> bool:
    try:
        _sound(path)
    except (OSError, Failure):
        return False
    return True


def _sound(path: Path) -> Table:
    data = path.read_bytes()
    if path.stem.rpartition("-")[2] != _hash(data):
        raise Failure("its content is not what was written")
    return Table.decoded(data)
