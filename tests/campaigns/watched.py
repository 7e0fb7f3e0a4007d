"""Damaged files are read in forked processes, so that a crash, a hang and a flood of memory are faults like others."""

from __future__ import annotations

import collections
import dataclasses
import faulthandler
import hashlib
import importlib.util
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from campaigns.mutations import mutated
from steadygrad.cli.app import _named
from steadygrad.errors import Failure, UsageError

SECONDS, BYTES = 20, 2 << 30
"""What one file may take: so long, and so much memory beyond that of the process before."""

FINE = ("same", "another", "named")
"""What may become of a damaged file; the rest are faults."""

Change = Callable[[bytes, random.Random], tuple[str, bytes]]


class Untold(Exception):
    """What was damaged is right again, but nobody was told."""


@dataclasses.dataclass(frozen=True)
class Target:
    """Files that are damaged, one at a time, and what reads them.

    Args:
        name: for the table.
        folder: the whole folder as it should be.
        victims: of which files one is damaged, as paths below the folder.
        read: gives plain data that are the same for the same content.
        kept: whether the files are those of a run, of which another result in silence is a fault.
        mends: whether the reader has to give the right result, whatever was damaged.
        writes: whether the reader changes the folder, which then is a new one each time.
        share: how often it is met, beside the others.
        change: how files are damaged.
    """

    name: str
    folder: Path
    victims: tuple[str, ...]
    read: Callable[[Path], Any]
    kept: bool = False
    mends: bool = False
    writes: bool = False
    share: float = 1.0
    change: Change = mutated


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one damaged file: "same", "another", "named", or a fault."""

    target: str
    index: int
    file: str
    how: str
    kind: str
    text: str = ""

    @property
    def fault(self) -> bool:
        """Whether it must not be."""
        return self.kind not in FINE


def digest(value: Any) -> str:
    """A short text that is the same for the same plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def judged(target: Target, seed: int, indexes: Iterable[int]) -> Iterator[Verdict]:
    """The verdicts on damages by number, which follow from the seed, from processes that are replaced as they fall."""
    left = collections.deque(indexes)
    while left:
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receive)
            _work(target, seed, list(left), send)
        os.close(send)
        with os.fdopen(receive, "rb", buffering=0) as lines:  # a buffer would hide lines from `select`
            while left:
                ready = select.select([lines], [], [], SECONDS)[0]
                line = lines.readline() if ready else b""
                if not line:
                    break
                yield Verdict(*json.loads(line))
                left.popleft()
        if left:
            os.kill(child, signal.SIGKILL) if not ready else None
            file, how, _ = _damaged(target, seed, left[0])
            status = os.waitpid(child, 0)[1]
            kind, text = ("crash", f"ended with {os.waitstatus_to_exitcode(status)}") if ready else ("hang", "")
            yield Verdict(target.name, left.popleft(), file, how, kind, text)
        else:
            os.waitpid(child, 0)


def guided(target: Target, minutes: float) -> int:
    """Have atheris look for damage to the first file of a target, guided by the branches taken, in this process.

    It prints what it finds, and ends the process at the first fault.
    """
    if importlib.util.find_spec("atheris") is None:
        say("atheris is not installed: run without --guided")
        return 2
    import atheris

    with tempfile.TemporaryDirectory() as place:
        folder, corpus = Path(place) / "run", Path(place) / "corpus"
        shutil.copytree(target.folder, folder)
        corpus.mkdir()
        shutil.copy(folder / target.victims[0], corpus / "whole")
        right = digest(target.read(folder))

        def one(data: bytes) -> None:
            (folder / target.victims[0]).write_bytes(data)
            kind, text = _read(target, folder, right)
            if kind not in FINE:
                raise AssertionError(f"{kind}: {text}")

        atheris.instrument_all()
        atheris.Setup([target.name, str(corpus), f"-max_total_time={round(60 * minutes)}", f"-timeout={SECONDS}"], one)
        atheris.Fuzz()
    return 0


def _damaged(target: Target, seed: int, index: int) -> tuple[str, str, bytes]:
    drawn = random.Random(f"{seed} {target.name} {index}")
    file = drawn.choice(target.victims)
    how, data = target.change((target.folder / file).read_bytes(), drawn)
    return file, how, data


def _work(target: Target, seed: int, indexes: list[int], send: int) -> None:
    """Read damaged files one after the other, and send a line for each; this process ends here."""
    import resource  # which Windows has not

    try:
        faulthandler.disable()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        warnings.simplefilter("ignore")
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, size + BYTES))
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / target.folder.name
            shutil.copytree(target.folder, folder)
            right = digest(target.read(folder))
            for index in indexes:
                file, how, data = _damaged(target, seed, index)
                if target.writes:
                    shutil.rmtree(folder, ignore_errors=True)
                    shutil.copytree(target.folder, folder)
                (folder / file).write_bytes(data)
                kind, text = _read(target, folder, right)
                line = json.dumps([target.name, index, file, how, kind, text[:500]])
                os.write(send, line.encode() + b"\n")
                (folder / file).write_bytes((target.folder / file).read_bytes())
        os._exit(0)
    except BaseException as error:
        os.write(send, json.dumps([target.name, -1, "", "", "crash", f"of the campaign: {error!r}"]).encode() + b"\n")
        os._exit(1)


def _read(target: Target, folder: Path, right: str) -> tuple[str, str]:
    try:
        found = digest(target.read(folder))
    except Untold as error:
        return "untold", str(error)
    except (UsageError, Failure) as error:
        return ("no way out" if target.mends else "named"), str(error)
    except Exception as error:
        named = _named(error)
        if named is None or "out of memory" in str(named):
            last = error.__traceback__
            while last is not None and last.tb_next is not None:
                last = last.tb_next
            where = f" in {last.tb_frame.f_code.co_filename}:{last.tb_lineno}" if last is not None else ""
            kind = "unforeseen" if named is None else "memory"
            return kind, f"{type(error).__name__}: {error}{where}"
        return ("no way out" if target.mends else "named"), str(named)
    if found == right:
        return "same", ""
    return ("silent" if target.kept or target.mends else "another"), ""


def table(title: str, rows: list[tuple[Any, ...]]) -> str:
    """Rows below each other, the first one being the head."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(f"{c!s:<{w}}" if i == 0 else f"{c!s:>{w}}" for i, (c, w) in enumerate(zip(r, widths))) for r in rows
    ]
    return "\n".join([title, lines[0], "-" * len(lines[0]), *lines[1:]])


def counted(verdicts: Iterable[Verdict], title: str, names: Iterable[str]) -> tuple[str, int]:
    """The table of verdicts, with each fault below it, and how many there are."""
    by: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in names}
    faults = []
    for verdict in verdicts:
        by[verdict.target]["fault" if verdict.fault else verdict.kind] += 1
        if verdict.fault:
            faults.append(
                f"{verdict.kind}: {verdict.target} {verdict.index}, {verdict.file} ({verdict.how}): {verdict.text}"
            )
    kinds = ("named", "same", "another", "fault")
    rows: list[tuple[Any, ...]] = [("files", "damaged", "named", "same", "another", "faults")]
    rows += [(name, sum(found.values()), *(found[kind] for kind in kinds)) for name, found in by.items()]
    rows.append(("all", *(sum(row[i] for row in rows[1:]) for i in range(1, 6))))
    return "\n".join([table(title, rows), *faults]), len(faults)


def say(text: str) -> None:
    """Print at once, whatever the output is."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
