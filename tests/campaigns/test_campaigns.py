"""Short versions of the campaigns, and their judge: each fault that it is there for is found."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from campaigns import fuzz, watched
from campaigns.mutations import flipped
from campaigns.watched import Target, counted, judged
from steadygrad.errors import Failure

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs fork and the memory of Linux"),
]


def test_a_few_hundred_damaged_files_of_all_kinds(tmp_path: Path) -> None:
    targets = fuzz.all_targets(tmp_path)
    found = list(fuzz.verdicts(targets, seed=0, first=0, count=250, minutes=0, batch=6))
    text, faults = counted(found, "damaged files", [target.name for target in targets])
    assert faults == 0, text
    assert len(found) == 250
    assert {"named", "same", "another"} == {verdict.kind for verdict in found}


def _hang(folder: Path) -> Any:
    time.sleep(60)


def _crash(folder: Path) -> Any:
    os.kill(os.getpid(), signal.SIGSEGV)


def _named(folder: Path) -> Any:
    raise Failure("a is damaged")


def _unforeseen(folder: Path) -> Any:
    raise KeyError("a")


def _greedy(folder: Path) -> Any:
    return len(bytes(3 << 30))


@pytest.mark.parametrize(
    ("read", "how", "kind"),
    [
        (_hang, {}, "hang"),
        (_crash, {}, "crash"),
        (_greedy, {}, "memory"),
        (_unforeseen, {}, "unforeseen"),
        (_named, {}, "named"),
        (_named, {"mends": True}, "no way out"),
        (lambda folder: (folder / "a").read_bytes().hex(), {}, "another"),
        (lambda folder: (folder / "a").read_bytes().hex(), {"kept": True}, "silent"),
    ],
)
def test_each_fault_is_found(
    read: Callable[[Path], Any], how: dict[str, Any], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "SECONDS", 0.5)
    (tmp_path / "a").write_bytes(b"whole")

    def only_damaged(folder: Path) -> Any:
        return 0 if (folder / "a").read_bytes() == b"whole" else read(folder)

    target = Target("a", tmp_path, ("a",), only_damaged, change=flipped, **how)
    kinds = Counter(verdict.kind for verdict in judged(target, 0, range(2)))
    assert kinds == {kind: 2}
