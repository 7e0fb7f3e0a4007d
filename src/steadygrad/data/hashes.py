"""Hashes of files, kept beside them by size and time: large data are read once to be told from others."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LENGTH = 20
"""Bytes of a hash."""
_NAME = ".steadygrad-hashes"
_ASKED = 500  # at once, which every build of SQLite takes
_Known = tuple[bytes, str]
"""What a hash is found by: the name, and the stamp of the file."""
_TABLE = "CREATE TABLE IF NOT EXISTS hashes (name BLOB PRIMARY KEY, stamp TEXT, hash BLOB) WITHOUT ROWID"


def caches() -> Path:
    """The user's folder for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "steadygrad"


def hash_of(content: bytes) -> bytes:
    """The hash of the bytes of a file."""
    return hashlib.sha256(content).digest()[:LENGTH]


@dataclass(frozen=True)
class Hashes:
    """The hashes of what is in files below a folder.

    They are kept in a hidden file in that folder, or, where it may not be written, in the user's folder of caches; a
    file that has another size, modification time or inode than it had is read again. Where neither can be written, or
    what is there is damaged, everything is read.

    Args:
        folder: of the data.
        verify: whether what was kept is not used, but made anew.
    """

    folder: Path
    verify: bool = False

    def of(self, named: Sequence[tuple[str, Path]], hashed: Callable[[Sequence[int]], Iterable[bytes]]) -> list[bytes]:
        """The hash of each of the contents that have these names, and are in these files.

        Args:
            named: a name below the folder, and the file, of each.
            hashed: the hashes of the contents at some places of `named`, by reading them.
        """
        stamps = _stamps([path for _, path in named])
        names = [os.fsencode(name) for name, _ in named]
        with self._opened(names) as (kept, found):
            out = [found.get((name, stamp), b"") for name, stamp in zip(names, stamps)]
            missing = [i for i, content in enumerate(out) if not content]
            if not missing:
                return out
            for i, content in zip(missing, hashed(missing)):
                out[i] = content
            if kept is not None:
                rows = [(names[i], stamps[i], out[i]) for i in missing]
                with contextlib.suppress(sqlite3.Error), kept:  # a full disk, or many others that write
                    kept.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", rows)
        return out

    @contextlib.contextmanager
    def _opened(self, names: Sequence[bytes]) -> Iterator[tuple[sqlite3.Connection | None, dict[_Known, bytes]]]:
        """The file of hashes, made if it is not there, and what it has; None and nothing where there can be none."""
        kept, found = _connected(self._path(), [] if self.verify else names)
        try:
            yield kept, found
        finally:
            if kept is not None:
                kept.close()

    def _path(self) -> Path:
        # A folder that nobody may write is left alone by root too.
        if os.access(self.folder, os.W_OK) and self.folder.stat().st_mode & 0o222:
            return self.folder / _NAME
        name = hashlib.sha256(os.fsencode(self.folder.resolve())).hexdigest()[:20]
        return caches() / f"{name}{_NAME}"


def _connected(path: Path, names: Sequence[bytes]) -> tuple[sqlite3.Connection | None, dict[_Known, bytes]]:
    for _ in range(2):
        kept = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = sqlite3.connect(path, timeout=10)
            kept.execute(_TABLE)
            return kept, _known(kept, names)
        except (sqlite3.Error, OSError) as error:
            if kept is not None:
                kept.close()
            if isinstance(error, OSError | sqlite3.OperationalError):  # it cannot be written, or is locked
                break
            with contextlib.suppress(OSError):  # it is damaged
                path.unlink()
    return None, {}


def _known(kept: sqlite3.Connection, names: Sequence[bytes]) -> dict[_Known, bytes]:
    found: dict[_Known, bytes] = {}
    for start in range(0, len(names), _ASKED):
        part = names[start : start + _ASKED]
        marks = ", ".join("?" * len(part))
        rows = kept.execute(f"SELECT name, stamp, hash FROM hashes WHERE name IN ({marks})", part)
        found |= {(name, stamp): content for name, stamp, content in rows if len(content) == LENGTH}
    return found


def _stamps(paths: Sequence[Path]) -> list[str]:
    """What changes with a file, as far as can be told without reading it; empty for one that is not there."""
    known: dict[Path, str] = {}
    for path in paths:
        if path not in known:
            try:
                about = os.stat(path)
                known[path] = f"{about.st_size} {about.st_mtime_ns} {about.st_ino}"
            except OSError:  # reading it says more
                known[path] = ""
    return [known[path] for path in paths]
