"""A folder of photos as people have it, through the commands, without any preparation."""

from __future__ import annotations

AUDIT = ("--attack", "fgsm", "--samples", "12", "--checked", "4", "--mapped", "4", "--gallery", "3")
