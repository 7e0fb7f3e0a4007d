"""Many audits in one process: memory, open files and threads must stay what they were.

    python -m campaigns.audits [--count 1000] [--warm 50] [--seed 0]

After `--warm` audits the resident size, the open descriptors and the threads are noted. At the end the size may be at
most 5 % above, and the others as they were. Every audit is of another model on other images; every tenth one has
maps and pictures, lies in a folder and is drawn as a page.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import steadygrad as sg
from campaigns.watched import say, table
from steadygrad import report

MOST = 1.05


def resident() -> float:
    """Megabytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def once(seed: int) -> None:
    """One audit of an untrained model, and its page."""
    drawn = np.random.default_rng(seed)
    data = sg.data.from_arrays(drawn.random((8, 1, 8, 8), dtype=np.float32), np.arange(8) % 2, name=f"drawn {seed}")
    model = sg.models.build("mlp", data.shape, data.classes, seed=seed, hidden=(6,))
    how: dict[str, Any] = {"attacks": [sg.attacks.FGSM()], "checked": 2}
    if seed % 10:
        sg.audit(model, data, sg.linf(0.1), attributions=(), gallery=0, **how)
        return
    with tempfile.TemporaryDirectory() as out:
        sg.audit(model, data, sg.linf(0.1), gallery=1, mapped=2, out=out, **how)
        report.write(out)


def counts() -> tuple[float, int, int]:
    """Memory in megabytes, descriptors and threads, with nothing left to be collected."""
    gc.collect()
    return resident(), len(os.listdir("/proc/self/fd")), threading.active_count()


def grown(count: int, warm: int, seed: int) -> tuple[str, int]:
    """The table of what is in use along the way, and the number of faults."""
    rows: list[tuple[object, ...]] = [("audits", "MB", "descriptors", "threads")]
    for done in range(count + 1):
        if done in (0, warm, count) or (done > warm and done % max(1, count // 10) == 0):
            found = counts()
            rows.append((done, round(found[0]), *found[1:]))
            if done == warm:
                begin = found
        if done < count:
            once(seed + done)
    wrong = [found[0] > MOST * begin[0], found[1] > begin[1], found[2] > begin[2]]
    share = f"resident size {found[0] / begin[0]:.3f} of that after {warm} audits"
    return f"{table(f'audits in one process, seed {seed}', rows)}\n{share}", sum(wrong)


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit many times and print what is in use; 1 if it grew."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--warm", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args(arguments)
    started = time.monotonic()
    text, faults = grown(given.count, min(given.warm, given.count), given.seed)
    say(f"{text}\n{faults} faults in {time.monotonic() - started:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
