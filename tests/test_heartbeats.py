"""A claim has one holder; that of a process which ended or fell silent is taken over, that of one at work is not."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from steadygrad import heartbeats
from steadygrad.heartbeats import alive, claimed

OLD = 1_000_000_000


def elsewhere(path: Path, beaten: float) -> Path:
    """The claim of a process on another machine, whose last beat was then."""
    path.write_text(json.dumps({"machine": "another", "process": 1, "dead": 0}))
    os.utime(path, (beaten, beaten))
    return path


def test_a_claim_has_one_holder_and_goes_with_its_block(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    with claimed(path) as mine, claimed(path) as theirs:
        assert (mine, theirs) == (0, None)
        assert alive(path)
    assert not path.exists()
    assert not alive(path)
    with pytest.raises(ZeroDivisionError), claimed(path):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_the_claim_of_a_process_that_was_killed_is_taken_over_at_once_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    for dead in (1, 2):
        source = (
            "import os, pathlib, sys; from steadygrad.heartbeats import claimed\n"
            "with claimed(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
        )
        assert subprocess.run([sys.executable, "-c", source, path], check=False).returncode == -9
        assert path.exists()
        if dead == 2:
            with claimed(path) as found:
                assert found == dead
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ['{"machine": "another", "process": 1, "dead": 1}', "", "[", "{}"])
def test_a_claim_of_another_machine_is_dead_when_it_falls_silent(tmp_path: Path, text: str) -> None:
    path = tmp_path / "claim"
    path.write_text(text)
    assert alive(path)
    with claimed(path) as found:
        assert found is None
    assert path.read_text() == text
    os.utime(path, (OLD, OLD))
    assert not alive(path)
    with claimed(path) as found:
        assert found == (2 if "another" in text else 1)


def test_silence_is_counted_by_the_clock_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = elsewhere(tmp_path / "claim", OLD)
    assert not alive(path)
    # A file system whose clock stands then, wherever that of this machine stands.
    monkeypatch.setitem(heartbeats._ahead, tmp_path.stat().st_dev, OLD + 10 - time.monotonic())
    assert alive(path)


def test_a_claim_beats_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "BEAT", 0.01)
    path, other = tmp_path / "claim", tmp_path / "other"
    with claimed(path), claimed(other):
        os.utime(path, (OLD, OLD))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime == OLD and time.monotonic() < deadline:
            time.sleep(0.01)
        assert alive(path)
    assert not [t for t in threading.enumerate() if t.name == "heartbeats" and not heartbeats._stopping.is_set()]


def test_who_wakes_up_leaves_the_claim_to_the_one_that_took_it_over(tmp_path: Path) -> None:
    path, sleeping = tmp_path / "claim", contextlib.ExitStack()
    sleeping.enter_context(claimed(path))
    elsewhere(path, OLD)
    with claimed(path) as theirs:
        assert theirs == 1
        sleeping.close()
        assert alive(path)
    assert list(tmp_path.iterdir()) == []
