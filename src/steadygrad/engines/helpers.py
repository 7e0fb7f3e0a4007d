"""Further processes that make the same run: each takes the pieces that no other one has."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch

from steadygrad.errors import UsageError

_LAST_SHARD = 60.0
"""Seconds after the end of a run for the processes that help it, which have only the summary left to make."""


@contextlib.contextmanager
def helped(count: int, again: Callable[[], object]) -> Iterator[None]:
    """Within the block so many further processes make the same run, each on its part of the threads.

    A process that fails is told and not replaced: its shard is left to the others.

    Raises:
        UsageError: a model or the data cannot be handed to another process.
    """
    if not count:
        yield
        return
    threads = torch.get_num_threads()
    share = max(1, threads // (count + 1))
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    processes = [context.Process(target=_work, args=(again, share), daemon=True) for _ in range(count)]
    torch.set_num_threads(share)
    try:
        for process in processes:
            _start(process)
        yield
        for process in processes:
            process.join(_LAST_SHARD)
    finally:
        torch.set_num_threads(threads)
        for process in processes:
            if process.pid is not None:
                if process.is_alive():
                    process.terminate()
                process.join()
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed:
        logging.getLogger("steadygrad").warning(
            "%d of %d workers ended early (exit code %s); what they left was done by the others",
            len(failed), count, ", ".join(map(str, failed)),
        )  # fmt: skip


def _start(process: Any) -> None:
    try:
        process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"workers: a model or the data cannot be handed to another process ({error}): start the same script or "
            "command several times with engine='shared' (--engine shared) instead"
        ) from error


def _work(again: Callable[[], object], threads: int) -> None:
    """The run in a process of its own, which says nothing: the first one does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process too, which ends this one
    logging.getLogger("steadygrad").setLevel(logging.CRITICAL)
    torch.set_num_threads(threads)
    again()
