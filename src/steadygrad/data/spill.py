"""Contents that are asked for one by one and cost a whole group each, in a file from which one can be read alone."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from steadygrad.data.hashes import caches

_LEFT = 0.1
"""Share of the disk that is left to others."""
_TIMES = 4
"""So often is a group read before it is written: a draw is read for its hashes and to be decoded, and then held."""


class Spill:
    """Groups of contents, of which those that are read again and again are written into a file that has no name.

    So a training, which asks for all rows in a random order, reads each group a few times rather than once for each
    of its rows. The file is in the user's folder of caches, since folders of temporary files may be memory, and goes
    with the process. Where it cannot be written, groups are read again.
    """

    def __init__(self) -> None:
        self._file: int | None = None
        self._ends: dict[Hashable, np.ndarray] = {}
        self._times: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    def read(self, group: Hashable, place: int) -> bytes | None:
        """A content of a group; None if the group is not there."""
        ends = self._ends.get(group)
        if ends is None or self._file is None:
            return None
        return os.pread(self._file, int(ends[place + 1] - ends[place]), int(ends[place]))

    def offer(self, group: Hashable, contents: Callable[[], Sequence[bytes]]) -> None:
        """Tell that a group was read as a whole."""
        with self._lock, contextlib.suppress(OSError):
            self._times[group] += 1
            if self._times[group] != _TIMES or not hasattr(os, "pread"):
                return
            if self._file is None:
                caches().mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=caches()) as file:
                    self._file = os.dup(file.fileno())
                weakref.finalize(self, os.close, self._file)
            start, rows = os.lseek(self._file, 0, os.SEEK_END), contents()
            ends = start + np.cumsum([0, *map(len, rows)])
            disk = os.fstatvfs(self._file)
            if (disk.f_bavail * disk.f_frsize - (ends[-1] - start)) < _LEFT * disk.f_blocks * disk.f_frsize:
                return
            try:
                written = os.write(self._file, b"".join(rows))
            except OSError:
                written = 0
            if written == ends[-1] - start:
                self._ends[group] = ends
            else:
                os.ftruncate(self._file, start)
