"""Commands run as a user runs them: in this process, or in forked ones that can be interrupted and killed."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from children import Parent, alive
from steadygrad.cli import main
from steadygrad.files import read_json

TRAIN = ("train", "--limit", "200", "--epochs", "2", "--set", "batch_size=32", "--set", "lr=5e-3")
"""Under a second of training on the digits."""

AUDIT = ("--attack", "fgsm", "--eps", "0.1", "--samples", "24", "--checked", "10")
"""Under a second of audit per model."""


@dataclass(frozen=True)
class Result:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


def call(*arguments: str | Path, by: Callable[[list[str]], None] = main) -> Result:
    """Run a command in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            by([str(a) for a in arguments])
        except SystemExit as left:
            code = int(left.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def done(*arguments: str | Path, by: Callable[[list[str]], None] = main) -> Result:
    """Run a command that must succeed."""
    result = call(*arguments, by=by)
    assert result.code == 0, result.err
    return result


def refused(code: int, *arguments: str | Path, by: Callable[[list[str]], None] = main) -> str:
    """Run a command that must fail with this exit code; its message, which is no traceback."""
    result = call(*arguments, by=by)
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    return result.err


# Imports once, then forks a child per line of input.
NURSERY = """
import json, os, resource, signal, sys
sys.path[:0] = json.loads(sys.argv[1])
import torch
torch.set_num_threads(1)
import matplotlib, pandas, pyarrow.parquet, rich.table, safetensors.torch, scipy.stats, sklearn.datasets
from steadygrad.cli import main
print("ready", flush=True)
for line in sys.stdin:
    given = json.loads(line)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(given["folder"])
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(given[name], os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        if given["limit"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (given["limit"], given["limit"]))
        if given["dies_after"]:
            replace, seen = os.replace, []
            def last(source, target):
                replace(source, target)
                seen.append(str(target))
                if sum(name.endswith(given["dies_after"][0]) for name in seen) == given["dies_after"][1]:
                    os.kill(os.getpid(), signal.SIGKILL)
            os.replace = last
        code = 0
        try:
            main(given["arguments"])
        except SystemExit as left:
            code = int(left.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Nursery(Parent):
    """Runs commands in processes of their own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(NURSERY, COLUMNS="80")
        self.folder = folder

    def run(
        self,
        *arguments: str | Path,
        sent: signal.Signals | None = None,
        when: Callable[[], bool] = lambda: False,
        limit: int = 0,
        dies_after: tuple[str, int] | None = None,
    ) -> Result:
        """Run a command in a process of its own.

        Args:
            arguments: of the command line.
            sent: a signal to send it.
            when: the condition that is watched for; it may be seen late, on a busy machine after the end.
            limit: bytes that no file may grow above.
            dies_after: the end of a file's name and a count: killed at once when so many of them stand.
        """
        child = self.begin(*arguments, limit=limit, dies_after=dies_after)
        deadline = time.monotonic() + 120
        while sent is not None and alive(child) and time.monotonic() < deadline:
            if when():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, sent)
                break
            time.sleep(0.001)
        return self.ended()

    def begin(
        self,
        *arguments: str | Path,
        limit: int = 0,
        dies_after: tuple[str, int] | None = None,
        folder: Path | None = None,
    ) -> int:
        """Start a command, in a folder if one is given; the number of its process, which `ended` waits for."""
        given = {"arguments": [str(a) for a in arguments], "limit": limit, "dies_after": dies_after}
        files = {name: str(self.folder / name) for name in ("out", "err")}
        return self.start({**given, **files, "folder": str(folder or Path.cwd())})

    def ended(self) -> Result:
        """How the command that was begun ended, once it has."""
        code = int(self.line())
        return Result(code, *((self.folder / name).read_text() for name in ("out", "err")))


def same_weights(a: Path, b: Path) -> bool:
    """Whether two safetensors files hold the same tensors, bit for bit."""
    from safetensors.torch import load_file

    mine, theirs = load_file(a), load_file(b)
    return mine.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in mine.items())


def lasting(folder: Path) -> dict[str, object]:
    """The summary of an audit without what differs from run to run."""
    summary, sound = read_json(folder / "summary.json")
    assert sound
    return {k: v for k, v in summary.items() if k not in ("created", "seconds", "command", "machine")}


def times(folder: Path) -> dict[str, int]:
    """When each shard of the tables of an audit was written, by its name without the hash of its content."""
    tables = folder / "tables"
    return {str(p.relative_to(tables)).rpartition("-")[0]: p.stat().st_mtime_ns for p in tables.rglob("[!.]*.parquet")}
