"""Pieces are divided: each is done once, those of a process that ended by another one."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from steadygrad.engines.pieces import divided
from steadygrad.errors import Failure


def test_each_piece_is_done_once_and_all_are_done_for_both(tmp_path: Path) -> None:
    done: list[tuple[str, str]] = []
    begun, last = threading.Event(), threading.Event()

    def mine(name: str) -> None:
        begun.set()
        last.wait(20)
        done.append(("mine", name))

    one = threading.Thread(target=divided, args=(tmp_path, "abc", mine))
    one.start()
    begun.wait(20)

    def theirs(name: str) -> None:
        done.append(("theirs", name))
        if name == "c":
            last.set()

    divided(tmp_path, "abc", theirs)
    assert sorted(done) == [("mine", "a"), ("theirs", "b"), ("theirs", "c")]
    one.join(20)
    assert len(done) == 3


def test_a_piece_that_fails_or_whose_process_ended_is_done_by_the_next(tmp_path: Path) -> None:
    def fail(name: str) -> None:
        raise Failure("no")

    with pytest.raises(Failure, match="no"):
        divided(tmp_path, "a", fail)
    (tmp_path / ".partial-doing-b").write_text(json.dumps({"machine": "another", "process": 1, "dead": 0}))
    os.utime(tmp_path / ".partial-doing-b", (0, 0))
    done: list[str] = []
    divided(tmp_path, "ab", done.append)
    assert done == ["a", "b"]
