"""A folder belongs to one run at a time: a lock that a kill releases, and that knows when the folder is gone."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from steadygrad.errors import Failure, UsageError
from steadygrad.heartbeats import alive, claimed

LOCK, HOLDER = ".steadygrad.lock", ".steadygrad.json"
"""The lock file, and who holds it, in the folder; the second one stays and marks a folder as ours."""
_WORKER = ".steadygrad.worker-"
"""How the claims begin of processes that make one run together."""

_inodes: dict[Path, int] = {}
"""Of the lock files that this process holds."""
_mine: ContextVar[frozenset[Path]] = ContextVar("_mine", default=frozenset())
"""The folders that the running call holds: what it calls may hold them again, other threads may not."""


class InUse(UsageError):
    """Another run is working in the folder."""


@contextlib.contextmanager
def held(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder, which must exist, within the block; wait so many seconds for it.

    Raises:
        InUse: another process or thread holds it; the message names it.
        Failure: at the end, if the folder was deleted or replaced in the meantime.
    """
    from filelock import FileLock, Timeout

    folder = folder.resolve()
    if folder in _mine.get():
        yield
        return
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=wait, poll_interval=0.05)
    except Timeout:
        holder = _holder(folder)
        raise InUse(
            f"{holder} is working in the output folder {folder}: wait until it is done, or choose another --out"
        ) from None
    except OSError as error:
        raise Failure(f"cannot hold the output folder {folder}: {error.strerror or error}") from error
    token = _mine.set(_mine.get() | {folder})
    try:
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        about = {"process": os.getpid(), "machine": platform.node(), "command": command}
        with contextlib.suppress(OSError):  # a full disk is told where something is lost by it
            (folder / HOLDER).write_text(json.dumps(about) + "\n", encoding="utf-8")
        _inodes[folder / LOCK] = (folder / LOCK).stat().st_ino
        yield
        check_there(folder)
    finally:
        _mine.reset(token)
        _inodes.pop(folder / LOCK, None)
        lock.release()


@contextlib.contextmanager
def joined(folder: Path, by: str = "") -> Iterator[None]:
    """Work in a folder beside others within the block, which begins while it is held; `by` is a word on how."""
    folder = folder.resolve()
    path = folder / f"{_WORKER}{secrets.token_hex(6)}-{by}"
    with claimed(path):
        _inodes[path] = path.stat().st_ino
        try:
            yield
            check_there(folder)
        finally:
            _inodes.pop(path, None)


def others(folder: Path) -> set[str]:
    """How processes work, by their own word, that are alive beside each other in a folder which is held.

    What dead ones left goes.
    """
    found = list(folder.glob(f"{_WORKER}*"))
    living = [path for path in found if alive(path)]
    for path in found:
        if path not in living:
            path.unlink(missing_ok=True)
    return {path.name.rpartition("-")[2] for path in living}


def check_there(path: Path) -> None:
    """Refuse to go on at a path below a held folder that was deleted or replaced since."""
    path = path.absolute()
    for lock, inode in list(_inodes.items()):
        folder = lock.parent
        if folder != path and folder not in path.parents and folder not in path.resolve().parents:
            continue
        try:
            same = lock.stat().st_ino == inode
        except OSError:
            same = False
        if not same:
            raise Failure(
                f"the output folder {folder} was deleted or replaced while this run was working in it: run the same "
                "command again"
            )


def _holder(folder: Path) -> str:
    """Who holds the folder, as far as it says so."""
    try:
        found = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {int(found['process'])} on {str(found['machine'])[:80]!r} ({str(found['command'])[:200]!r})"
    except Exception:  # whatever a file can hold
        return "another process"
