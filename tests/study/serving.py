"""A study server as a process of its own, which can be killed and started again at once."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import urllib.request
from pathlib import Path

from children import Parent
from steadygrad.serving.port import bound

_SOURCE = """
import json, os, signal, sys
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
import psycopg
from steadygrad.study import server
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks for the ends of children
print("ready", flush=True)
for line in sys.stdin:
    folder, url, port = json.loads(line)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            server.run(Path(folder), url, "127.0.0.1", port, 10_000.0, lambda text: None)
        finally:
            os._exit(1)
    print(child, flush=True)
"""


class Server:
    """Serves a study at an address that stays the same."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.database = folder, url
        with bound("127.0.0.1", 0) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.parent = Parent(_SOURCE)
        self.child = 0

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.child = self.parent.start([str(self.folder), self.database, self.port])
        for _ in range(500):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/static/serving.css", timeout=5):
                return
            time.sleep(0.02)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL)
        while self._there():
            time.sleep(0.005)

    def _there(self) -> bool:
        try:
            os.kill(self.child, 0)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """End it and its parent."""
        self.kill()
        self.parent.close()
