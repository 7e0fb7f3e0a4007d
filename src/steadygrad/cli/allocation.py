"""What a process takes of the machine: memory that it was given once is used again, and busy cores are left alone."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

_RUNNING = Path("/proc/loadavg")
# Names of the C library: blocks up to so many bytes come from the heap, whose end is given back beyond so many.
_SETTINGS = {"MALLOC_MMAP_THRESHOLD_": (-3, 2**30), "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1)}


def leave_busy_cores() -> None:
    """Have this process, and those that it starts, use as many threads as cores are idle; what the user has set stays.

    Threads of one operation wait for each other. Where another program has a core, the thread that shares it is late
    each time: two threads may then take many times as long as one. Must be called before PyTorch is imported.
    """
    busy = 0 if "OMP_NUM_THREADS" in os.environ else _running_elsewhere()
    if busy:
        cores, every = len(os.sched_getaffinity(0)), os.cpu_count() or 1
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores - round(busy * cores / every)))


def _running_elsewhere() -> int:
    """How many threads of other processes run all the while; 0 where the system does not say."""
    running = []
    for _ in range(4):  # one that runs for a moment only does not count
        try:
            running.append(int(_RUNNING.read_text("ascii").split()[3].partition("/")[0]) - 1)
        except (OSError, ValueError, IndexError):
            return 0
        time.sleep(0.005)
    return max(0, min(running))


def keep_memory() -> None:
    """Have this process, and those that it starts, keep what they were given; what the user has set stays.

    The GNU C library takes each block above 32 MB from the system and gives it back when it is freed. Layers of large
    images make such blocks in every pass, and the system then clears each page of them again.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _SETTINGS):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library has none
    if mallopt is None:
        return
    for name, (number, value) in _SETTINGS.items():
        mallopt(number, value)
        os.environ[name] = str(value)
