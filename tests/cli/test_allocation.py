"""What was freed is used again: the system does not clear the same pages anew at every pass."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from steadygrad.cli.allocation import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
np.ones(2**23)  # 64 MB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux" or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="needs glibc")
def test_freed_blocks_are_used_again() -> None:
    faults = {}
    given = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    for how in ("plain", "kept"):
        called = [sys.executable, "-c", SCRIPT, how]
        done = subprocess.run(called, capture_output=True, text=True, check=True, env=given)
        faults[how] = int(done.stdout)
    assert faults["kept"] < faults["plain"] / 10
