"""Files appear whole or not at all; a run folder belongs to one configuration."""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile

import pytest
import torch

from steadygrad import files
from steadygrad.errors import Failure, UsageError


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "er" / "a.txt"
    files.write_text(path, "old")
    with files.atomic(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_exception_keeps_the_old_file_and_leaves_no_other(tmp_path, error):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def write() -> None:
        with files.atomic(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_exception_leaves_nothing_where_nothing_was(tmp_path):
    with pytest.raises(ValueError, match="no"), files.atomic(tmp_path / "a.txt"):
        raise ValueError("no")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_named(tmp_path):
    expected = pytest.raises(Failure, match=r"cannot write .*a\.txt: No space left on device; free space")
    with expected, files.atomic(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_a_disk_full_from_the_start_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkstemp", full)
    with pytest.raises(Failure, match="No space left on device"):
        files.write_text(tmp_path / "a.txt", "text")


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "plain").write_text("")
    with pytest.raises(Failure, match=r"cannot write .*plain"):
        files.write_text(tmp_path / "plain" / "a.txt", "text")


def test_files_get_the_usual_permissions(tmp_path):
    old = os.umask(0o022)
    try:
        files.write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_json_is_written_in_order_and_without_nan(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"b": 1, "a": [None, 2.5, "ü"]})
    assert list(json.loads(path.read_text(encoding="utf-8"))) == ["b", "a"]
    with pytest.raises(Failure, match=r"a\.json: .*use null"):
        files.write_json(path, {"b": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["b"] == 1


def test_keys_are_stable_and_tell_values_apart():
    assert files.key("pgd", 40, {"a": 1, "b": 2}) == files.key("pgd", 40, {"b": 2, "a": 1})
    assert len({files.key("a", 1), files.key("a", "1"), files.key("a1"), files.key("a", 1.5), files.key()}) == 5
    assert files.key("pgd", 40) == "5a34d229f37549fbc7de"


def test_an_output_folder_is_made_and_reopened(tmp_path):
    config = {"eps": 0.1, "path": tmp_path, "out": None, "attack": {"name": "pgd", "step": None, "norms": ["l2"]}}
    folder = files.output_folder(tmp_path / "runs" / "one", config)
    kept = {"eps": 0.1, "path": str(tmp_path), "attack": {"name": "pgd", "norms": ["l2"]}}
    assert files.read_toml(folder / "config.toml") == kept
    assert files.output_folder(folder, dict(reversed(config.items()))) == folder


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "plain").write_text("")
    with pytest.raises(UsageError, match="plain is a file: choose another --out"):
        files.output_folder(tmp_path / "plain", {})


def test_an_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "plain").write_text("")
    with pytest.raises(UsageError, match=r"is not writable .*: choose another --out"):
        files.output_folder(tmp_path / "plain" / "run", {})


def test_an_output_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # By hand: for root a read-only folder is writable.
    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    with pytest.raises(UsageError, match=r"is not writable \(Permission denied\)"):
        files.output_folder(tmp_path / "run", {})


def test_an_output_folder_of_another_configuration_is_refused_and_kept(tmp_path):
    folder = files.output_folder(tmp_path / "run", {"eps": 0.1, "seed": 0, "norm": "linf"})
    with pytest.raises(UsageError, match=r"another configuration \(differs in: eps, steps\)"):
        files.output_folder(folder, {"eps": 0.2, "seed": 0, "norm": "linf", "steps": 3})
    assert files.read_toml(folder / "config.toml")["eps"] == 0.1


@pytest.mark.parametrize("content", [b"{", b"3", b"\xff\xfe"])
def test_an_output_folder_with_a_foreign_record_is_refused(tmp_path, content):
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"config\.toml is not a TOML file"):
        files.output_folder(tmp_path, {})


def test_a_missing_configuration_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no configuration file .*absent\.toml"):
        files.read_toml(tmp_path / "absent.toml")


def test_a_file_is_flushed_through_a_handle_that_may_write(tmp_path, monkeypatch):
    """As on Windows, which refuses to flush a file that is opened for reading, and any folder."""
    fcntl = pytest.importorskip("fcntl")
    flushed = []

    def fsync(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed.append(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    files.write_text(tmp_path / "a.txt", "one")
    files.write_json(tmp_path / "a.json", {"a": 1})
    files.write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)}, {})
    files.output_folder(tmp_path / "run", {"a": 1})
    assert len(flushed) == 4
    assert (tmp_path / "a.txt").read_text() == "one"
