"""Files that say who is at work: made exclusively, kept fresh by a heartbeat, taken over when that stops.

Locks of a file system end with their process, but not all of them reach other machines. A file does. That two processes
hold one claim, after one of them was stopped for a minute, is possible and must do no harm.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steadygrad.errors import Failure

BEAT, SILENT = 5.0, 60.0
"""Seconds between two beats of a claim, and of silence after which it is dead."""

_guard = threading.Lock()
_held: dict[int, Path] = {}
"""The files of the claims that this process holds, which one thread keeps fresh, by their open handle."""
_ahead: dict[int, float] = {}
"""How far the clock of a file system, by its device, is ahead of the one that counts seconds here."""


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[int | None]:
    """Within the block the file of this path is this process's: how many had it before and ended without a word.

    None while another process has it.

    Raises:
        Failure: the claim of a dead process cannot be taken over.
    """
    handle, dead = _made(path), 0
    if handle is None and not alive(path):
        dead = _owner(path).get("dead", 0) + 1
        aside = path.with_name(f"{path.name}-{secrets.token_hex(6)}")  # of several that try it, one can do so
        try:
            path.rename(aside)
            aside.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Failure(f"cannot take over {path}, whose process has ended: {error.strerror or error}") from error
        else:
            handle = _made(path)
    if handle is None:
        yield None
        return
    mine = os.fstat(handle)
    with contextlib.suppress(OSError):  # on a full disk a claim is an empty file
        os.write(handle, json.dumps({"machine": _machine(), "process": os.getpid(), "dead": dead}).encode())
    stopping = _beating(handle, path)
    try:
        yield dead
    finally:
        with _guard:
            _held.pop(handle)
            os.close(handle)
            if not _held:
                stopping.set()
        with contextlib.suppress(OSError):
            if os.path.samestat(mine, path.stat()):
                path.unlink()


def alive(path: Path) -> bool:
    """Whether the process of a claim is at work, as far as one can tell: false if there is no claim."""
    try:
        with contextlib.suppress(PermissionError), path.open("rb"):
            pass  # a network file system looks again at a file that is opened
        beaten = path.stat().st_mtime
        owner = _owner(path)
        if owner.get("machine") == _machine() and not _runs(owner.get("process")):
            return False
        return _now(path.parent) - beaten < SILENT
    except FileNotFoundError:
        return False


def _made(path: Path) -> int | None:
    try:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    except FileExistsError:
        return None


def _owner(path: Path) -> dict[str, Any]:
    """What a claim says of its process; nothing where it says nothing yet, or to others."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("dead"), int) else {}


def _machine() -> str:
    """What no other machine is called, nor a container in which processes have other numbers."""
    try:
        inside = os.readlink("/proc/self/ns/pid")
    except OSError:
        inside = ""
    return f"{platform.node()} {uuid.getnode():x} {inside}"


def _runs(process: Any) -> bool:
    """Whether a process of this machine is there, as far as one may ask."""
    if os.name != "posix" or not isinstance(process, int):  # elsewhere the question would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _now(folder: Path) -> float:
    """The time by the clock that dates the files of a folder, which may be that of another machine."""
    device = folder.stat().st_dev
    if device not in _ahead:
        with tempfile.TemporaryFile(dir=folder) as file:
            _ahead[device] = os.fstat(file.fileno()).st_mtime - time.monotonic()
    return time.monotonic() + _ahead[device]


_stopping = threading.Event()


def _beating(handle: int, path: Path) -> threading.Event:
    """Keep a claim fresh; returns what ends that for all of them."""
    global _stopping
    with _guard:
        if not _held:
            _stopping = threading.Event()
            threading.Thread(target=_beat, args=(_stopping,), name="heartbeats", daemon=True).start()
        _held[handle] = path
        return _stopping


def _beat(stopping: threading.Event) -> None:
    while not stopping.wait(BEAT):
        with _guard:
            for handle, path in _held.items():
                with contextlib.suppress(OSError):
                    # By its handle: the path may be another's by now.
                    os.utime(handle if os.utime in os.supports_fd else path)
