"""Whether the Hub answers, found out at once: its own client tries for most of a minute."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WAIT = 1.0
"""Seconds that the Hub has to answer; more where HF_HUB_ETAG_TIMEOUT, which its client knows too, says so."""


def unreachable() -> str | None:
    """Why the Hub, or the proxy on the way to it, does not answer; None if it does."""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if os.environ.get("HF_HUB_OFFLINE", "").casefold() in ("1", "true", "yes", "on"):
        return "HF_HUB_OFFLINE is set"
    there = urllib.parse.urlsplit(endpoint)
    proxy = urllib.request.getproxies().get(there.scheme)
    if proxy and not urllib.request.proxy_bypass(there.hostname or ""):
        there = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    host, port = there.hostname or "", there.port or (80 if there.scheme == "http" else 443)
    wait = WAIT
    with contextlib.suppress(ValueError):
        wait = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or WAIT)
    found = [f"{host} does not answer within {wait:g} s (HF_HUB_ETAG_TIMEOUT waits longer)"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=wait).close()
            found.append("")
        except OSError as error:
            found.append(f"{host} is not reached ({error.strerror or error})")

    # In a thread of its own, since looking up a name knows no limit of time.
    trial = threading.Thread(target=connect, daemon=True)
    trial.start()
    trial.join(wait)
    return found[-1] or None


def is_cached(repository: str) -> bool:
    """Whether the client of the Hub may have this data set on this machine."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    made = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets") / repository.replace("/", "___")
    files = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"datasets--{repository.replace('/', '--')}"
    return made.expanduser().is_dir() or files.expanduser().is_dir()


@contextlib.contextmanager
def as_reachable() -> Iterator[str | None]:
    """Why the Hub is not reached, if it is not; within the block its clients then look on this machine only.

    `datasets` must be imported before, where it is one of them: it keeps what it finds at its import.
    """
    why = unreachable()
    with contextlib.suppress(ImportError):
        importlib.import_module("huggingface_hub.constants")
    clients: list[Any] = [sys.modules.get(name) for name in ("datasets.config", "huggingface_hub.constants")]
    places = [client for client in clients if why is not None and hasattr(client, "HF_HUB_OFFLINE")]
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        yield why
    finally:
        for place, value in zip(places, before):
            place.HF_HUB_OFFLINE = value
