"""A run folder belongs to one configuration and to one run at a time, and is never somebody else's."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from steadygrad import run_folders
from steadygrad.errors import Failure, UsageError
from steadygrad.files import atomic, write_text
from steadygrad.locks import HOLDER, InUse
from steadygrad.run_folders import OtherRun, claimed, read_record, run_folder


def made(path: Path, config: dict[str, object]) -> Path:
    with run_folder(path, config) as folder:
        return folder


def test_a_folder_is_made_and_reopened(tmp_path):
    config = {"eps": 0.1, "path": tmp_path, "out": None, "attack": {"name": "pgd", "step": None, "norms": ["l2"]}}
    folder = made(tmp_path / "runs" / "one", config)
    assert read_record(folder) == {"eps": 0.1, "path": str(tmp_path), "attack": {"name": "pgd", "norms": ["l2"]}}
    before = (folder / "config.toml").read_bytes()
    assert made(folder, dict(reversed(config.items()))) == folder
    assert (folder / "config.toml").read_bytes() == before


def test_a_file_is_refused(tmp_path):
    (tmp_path / "plain").write_text("")
    with pytest.raises(UsageError, match="plain is a file: choose another --out"):
        made(tmp_path / "plain", {})
    with pytest.raises(UsageError, match=r"is not writable .*: choose another --out"):
        made(tmp_path / "plain" / "run", {})


def test_a_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # By hand: for root a read-only folder is writable.
    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    with pytest.raises(UsageError, match=r"is not writable \(Permission denied\)"):
        made(tmp_path / "run", {})


def test_another_configuration_is_refused_and_kept(tmp_path):
    folder = made(tmp_path / "run", {"eps": 0.1, "seed": 0, "norm": "linf"})
    with pytest.raises(OtherRun, match=r"another configuration \(differs in: eps, steps\).*, or delete it"):
        made(folder, {"eps": 0.2, "seed": 0, "norm": "linf", "steps": 3})
    assert read_record(folder)["eps"] == 0.1


@pytest.mark.parametrize("name", ["main.py", "config.toml", "models/a.txt", "a [red]b"])
def test_somebody_else_s_folder_is_refused_and_nobody_is_told_to_delete_it(tmp_path, name):
    write_text(tmp_path / name, "mine = 1\n")
    before = sorted(tmp_path.rglob("*"))
    for spelling in (tmp_path, str(tmp_path) + "/", os.path.relpath(tmp_path)):
        with pytest.raises(OtherRun, match="holds files that are of no run") as caught:
            made(Path(spelling), {"a": 1})
        assert "delete" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_working_folder_by_no_name_is_refused_where_it_is_somebody_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "main.py").write_text("")
    for name in (".", ""):
        with pytest.raises(OtherRun, match="holds files that are of no run"):
            made(Path(name), {})


def test_an_empty_folder_and_one_with_hidden_files_are_taken(tmp_path):
    (tmp_path / ".gitignore").write_text("*")
    assert made(tmp_path, {"a": 1}) == tmp_path
    assert read_record(tmp_path) == {"a": 1}


def test_a_copy_without_hidden_files_is_taken(tmp_path):
    folder = made(tmp_path / "run", {"a": 1})
    (tmp_path / "copy").mkdir()
    shutil.copy(folder / "config.toml", tmp_path / "copy")
    assert made(tmp_path / "copy", {"a": 1}) == tmp_path / "copy"


def test_a_damaged_record_is_written_again_and_told(tmp_path, caplog):
    folder = made(tmp_path / "run", {"eps": 0.1})
    whole = (folder / "config.toml").read_bytes()
    for damage in (b"", whole[:-5], whole.replace(b"0.1", b"0.5"), b"\xff" + whole, whole + b"a = 1\n"):
        (folder / "config.toml").write_bytes(damage)
        with pytest.raises(Failure, match="is damaged or was edited"):
            read_record(folder)
        with caplog.at_level(logging.WARNING, "steadygrad"):
            made(folder, {"eps": 0.1})
        assert "config.toml is damaged or was edited and is written again" in caplog.messages[-1]
        assert (folder / "config.toml").read_bytes() == whole


def test_no_flipped_bit_of_a_record_is_read(tmp_path):
    folder = made(tmp_path / "run", {"eps": 0.1, "norm": "linf"})
    path, whole = folder / "config.toml", (folder / "config.toml").read_bytes()
    for place in np.random.default_rng(0).permutation(8 * len(whole))[:1000].tolist():
        path.write_bytes(whole[: place // 8] + bytes([whole[place // 8] ^ (1 << place % 8)]) + whole[place // 8 + 1 :])
        with pytest.raises(Failure, match="is damaged or was edited"):
            read_record(folder)


def test_no_record_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no run at .*absent: give the --out folder"):
        read_record(tmp_path / "absent")


def test_a_second_run_in_a_folder_is_refused_with_who_is_there(tmp_path):
    source = (
        "import sys\nfrom steadygrad.run_folders import run_folder\n"
        "with run_folder(sys.argv[1], {'a': 1}):\n    print('ready', flush=True)\n    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(InUse, match=rf"process {other.pid} on .*: wait until it is done, or choose another --out"):
            made(tmp_path / "run", {"a": 1})
        with pytest.raises(OtherRun, match="another configuration"):
            made(tmp_path / "run", {"a": 2})
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
        assert other.stdin is not None
        other.stdin.close()
    assert made(tmp_path / "run", {"a": 1})  # the lock went with the process


def test_a_run_that_begins_beside_another_one_looks_for_another_folder(tmp_path):
    with claimed(tmp_path / "run"):
        found = _in_a_thread(lambda: made(tmp_path / "run", {"a": 1}))
    assert isinstance(found, OtherRun)
    assert "another run is beginning" in str(found)


def test_a_thread_beside_is_refused_and_a_call_within_is_not(tmp_path):
    with run_folder(tmp_path / "run", {"a": 1}):
        assert isinstance(_in_a_thread(lambda: made(tmp_path / "run", {"a": 1})), InUse)
        assert made(tmp_path / "run", {"a": 1})
        assert isinstance(_in_a_thread(lambda: made(tmp_path / "run", {"a": 1})), InUse)
        assert _in_a_thread(lambda: made(tmp_path / "run" / "below", {"a": 1})) == tmp_path / "run" / "below"
    assert _in_a_thread(lambda: made(tmp_path / "run", {"a": 1})) == tmp_path / "run"


def _in_a_thread(work) -> object:
    found: list[object] = []

    def run() -> None:
        try:
            found.append(work())
        except UsageError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"process": 1e999}', "[" * 100_000], ids=["cut", "list", "inf", "deep"]
)
def test_an_unreadable_holder_is_another_process(content, tmp_path):
    with claimed(tmp_path):
        (tmp_path / HOLDER).write_text(content)
        found = _in_a_thread(lambda: made(tmp_path, {"a": 1}))
    assert isinstance(found, OtherRun)


@pytest.mark.parametrize("again", [False, True], ids=["gone", "made again"])
def test_a_folder_that_vanishes_is_an_error_and_does_not_come_back(tmp_path, again):
    folder = tmp_path / "run"

    def work() -> None:
        with run_folder(folder, {"a": 1}):
            shutil.rmtree(folder)
            if again:
                folder.mkdir()
            with pytest.raises(Failure, match="was deleted or replaced while"):
                write_text(folder / "tables" / "a.txt", "text")

    with pytest.raises(Failure, match="was deleted or replaced while"):
        work()
    assert again == folder.exists()
    assert not again or os.listdir(folder) == []
    write_text(folder / "a.txt", "text")  # nobody holds it now


def test_an_error_within_is_not_covered_by_the_folder_that_is_gone(tmp_path):
    def work() -> None:
        with run_folder(tmp_path / "run", {"a": 1}) as folder:
            shutil.rmtree(folder)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()


def test_leftovers_of_a_killed_run_are_removed_and_those_of_a_living_one_are_not(tmp_path):
    folder = made(tmp_path / "run", {"a": 1})
    dead, inner = folder / "tables" / ".partial-0a-x.parquet", folder / "training"
    write_text(dead.parent / "x.parquet", "kept")
    dead.write_text("half")
    with run_folder(inner, {"b": 1}), atomic(inner / "model.safetensors") as alive:
        made(folder, {"a": 1})
        assert alive.exists()
        assert not dead.exists()
        alive.write_text("whole")
    assert sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".steadygrad")) == [
        "config.toml", "config.toml", "model.safetensors", "x.parquet",
    ]  # fmt: skip


def test_the_holder_is_written_as_plain_data(tmp_path):
    with claimed(tmp_path):
        found = json.loads((tmp_path / HOLDER).read_text())
    assert found["process"] == os.getpid()
    assert run_folders.is_ours(tmp_path)
