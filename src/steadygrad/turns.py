"""Threads take turns at what a process has once: random generators, switches of PyTorch, and the state of a module."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch

TURN = threading.RLock()
"""Whoever holds it is alone with all of that; a thread may take it again. There is one, so that none waits in a circle.

It is held for as long as a module is frozen or on another device, has hooks, or draws under a seed: for a table of an
audit, for a batch of an attack, for a step of a training.
"""


@contextlib.contextmanager
def drawing(devices: Sequence[Any] = (), seed: int | None = None) -> Iterator[None]:
    """Within the block this thread alone draws from the global generators, which are left as they were.

    Args:
        devices: GPUs whose generators count, beside that of the CPU.
        seed: from which layers draw; as things are, if none.

    >>> with drawing(seed=3):
    ...     first = torch.rand(2)
    >>> with drawing(seed=3):
    ...     bool((torch.rand(2) == first).all())
    True
    """
    with TURN, torch.random.fork_rng(devices, enabled=True):
        if seed is not None:
            # torch.manual_seed would reseed the generators of all GPUs as well.
            torch.default_generator.manual_seed(seed)
            for device in devices:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
        yield
