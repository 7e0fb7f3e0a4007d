"""Where a number comes from: version, time and machine."""

from __future__ import annotations

import platform
import sys
from datetime import datetime, timezone
from typing import Any

import torch


def machine(device: str = "cpu") -> dict[str, Any]:
    """The machine in plain data: platform, Python, torch, device and threads.

    >>> machine()["device"]
    'cpu'
    """
    return {
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "threads": torch.get_num_threads(),
    }


def now() -> str:
    """The time in UTC to the second, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
