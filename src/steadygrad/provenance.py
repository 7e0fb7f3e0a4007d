"""Where a number comes from: version, time and machine."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

import torch


def machine(device: str = "cpu") -> dict[str, Any]:
    """The machine in plain data: its name, platform, Python, torch, device and threads.

    >>> machine()["device"]
    'cpu'
    """
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
    }


def now() -> str:
    """The time in UTC to the second, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def kinds(machines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One machine of each kind: those of a kind compute the same to the last digit, as far as one can tell.

    >>> len(kinds([machine(), {**machine(), "host": "other"}, {**machine(), "device": "NVIDIA H200"}]))
    2
    """
    found = {tuple(str(m.get(name)) for name in ("device", "torch", "platform")): dict(m) for m in machines}
    return [found[kind] for kind in sorted(found)]
