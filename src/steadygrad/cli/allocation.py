"""Memory that the process was given once is used again, rather than handed back to the system and asked for anew."""

from __future__ import annotations

import ctypes
import os
import sys

# Names of the C library: blocks up to so many bytes come from the heap, whose end is given back beyond so many.
_SETTINGS = {"MALLOC_MMAP_THRESHOLD_": (-3, 2**30), "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1)}


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
