"""What was freed is used again, so that pages are not cleared anew at every pass; and busy cores are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from steadygrad.cli import allocation

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


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs a system that says which cores there are")
@pytest.mark.parametrize(
    ("running", "set_before", "threads"), [(1, None, None), (2, None, "3"), (9, None, "1"), (9, "4", "4")]
)
def test_as_many_threads_as_cores_are_idle(
    running: int, set_before: str | None, threads: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "loadavg"
    said.write_text(f"3.10 2.00 1.00 {running}/245 4711\n", "ascii")  # this process is one of those that run
    monkeypatch.setattr(allocation, "_RUNNING", said)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if set_before is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", set_before)
    allocation.leave_busy_cores()
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_a_system_that_does_not_say_gets_all_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "_RUNNING", tmp_path / "none")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    allocation.leave_busy_cores()
    assert "OMP_NUM_THREADS" not in os.environ
