"""A helper process that imports the library once, and forks a child for each line it is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys


class Parent:
    """Runs the source of the helper; its first line is "ready", and it ends when its input does."""

    def __init__(self, source: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, json.dumps([p for p in sys.path if p])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        assert self.line() == "ready"

    def line(self) -> str:
        """The next line that the helper prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, given: object) -> int:
        """Have a child made for the given plain data; its process number."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(given) + "\n")
        self.process.stdin.flush()
        return int(self.line())

    def close(self) -> None:
        """End the helper."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def alive(child: int) -> bool:
    """Whether a process of this number is there."""
    try:
        os.kill(child, 0)
    except ProcessLookupError:
        return False
    return True
