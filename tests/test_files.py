"""Files appear whole or not at all, and say when they are not what was written."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

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

    monkeypatch.setattr(files.os, "open", full)
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
    assert list(json.loads(path.read_text(encoding="utf-8"))) == ["b", "a", "sha256"]
    assert files.read_json(path) == ({"b": 1, "a": [None, 2.5, "ü"]}, True)
    with pytest.raises(Failure, match=r"a\.json: .*use null"):
        files.write_json(path, {"b": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["b"] == 1


def test_keys_are_stable_and_tell_values_apart():
    assert files.key("pgd", 40, {"a": 1, "b": 2}) == files.key("pgd", 40, {"b": 2, "a": 1})
    assert len({files.key("a", 1), files.key("a", "1"), files.key("a1"), files.key("a", 1.5), files.key()}) == 5
    assert files.key("pgd", 40) == "5a34d229f37549fbc7de"


def test_a_missing_configuration_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no configuration file .*absent\.toml"):
        files.read_toml(tmp_path / "absent.toml")


def test_a_file_is_flushed_through_a_handle_that_may_write_and_its_folder_after_it(tmp_path, monkeypatch):
    """As on Windows, which refuses to flush a file that is opened for reading."""
    fcntl = pytest.importorskip("fcntl")
    flushed = []

    def fsync(handle):
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        if not folder and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed.append("folder" if folder else "file")

    monkeypatch.setattr(files.os, "fsync", fsync)
    files.write_text(tmp_path / "a.txt", "one")
    files.write_json(tmp_path / "a.json", {"a": 1})
    files.write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)}, {})
    assert flushed == ["file", "folder"] * 3
    files.write_text(tmp_path / "new" / "folder" / "a.txt", "one")  # the new folders are there before what is in them
    assert flushed[6:] == ["folder", "folder", "file", "folder"]
    assert (tmp_path / "a.txt").read_text() == "one"


def test_a_file_system_that_flushes_no_folders_will_do(tmp_path, monkeypatch):
    flush = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    files.write_text(tmp_path / "a.txt", "one")
    assert (tmp_path / "a.txt").read_text() == "one"


def test_no_process_wide_setting_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "umask", lambda mask: pytest.fail("another thread would make open files"))
    files.write_text(tmp_path / "a.txt", "text")


def flips(data: bytes) -> Iterator[bytes]:
    """The bytes with one bit changed, at a thousand places at most."""
    places = np.random.default_rng(0).permutation(8 * len(data))[:1000].tolist()
    for place in places:
        yield data[: place // 8] + bytes([data[place // 8] ^ (1 << place % 8)]) + data[place // 8 + 1 :]


def test_no_flipped_bit_changes_a_json_file_in_silence(tmp_path):
    path, value = tmp_path / "a.json", {"b": [1, 2.5, None], "a": {"name": "ü", "on": True}}
    files.write_json(path, value)
    for data in flips(path.read_bytes()):
        path.write_bytes(data)
        try:
            found, sound = files.read_json(path)
        except ValueError:
            continue
        assert not sound or found == value


def test_no_flipped_bit_changes_a_file_of_tensors_in_silence(tmp_path):
    path, metadata = tmp_path / "a.safetensors", {"run": "a", "progress": {"epoch": 1, "rows": [0.5]}}
    tensors = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.tensor(True), "c": torch.zeros(0, 2).half()}
    files.write_tensors(path, tensors, metadata)
    for data in flips(path.read_bytes()):
        path.write_bytes(data)
        try:
            found, about = files.read_tensors(path)
        except Failure:
            continue
        assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in tensors.items()}
        assert {**about, **metadata} == about


def test_tensors_that_others_wrote_are_taken_without_a_checksum(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert files.read_tensors(tmp_path / "a.safetensors")[0]["a"].tolist() == [1, 1]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4', ", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_array_is_refused(content, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"the mask cannot be read from .*give a NumPy file of numbers"):
        files.open_array(path, "the mask")


def test_a_header_cannot_ask_for_more_than_the_file_has(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(3))
    path.write_bytes(path.read_bytes().replace(b"(3,), }          ", b"(30000000000,), }"))
    with pytest.raises(UsageError, match="mmap length is greater than file size"):
        files.open_array(path, "the mask")


def test_what_is_damaged_is_told_before_it_is_replaced(tmp_path, caplog):
    document, weights = tmp_path / "a.json", tmp_path / "a.safetensors"
    for _ in range(2):  # what is sound is replaced without a word
        files.write_json(document, {"a": 1})
        files.write_tensors(weights, {"a": torch.zeros(2)}, {})
    assert caplog.messages == []
    document.write_text(document.read_text().replace("1", "2", 1))
    weights.write_bytes(weights.read_bytes()[:-1])
    files.write_json(document, {"a": 1})
    files.write_tensors(weights, {"a": torch.zeros(2)}, {})
    words = "is damaged or was edited and is written again"
    assert caplog.messages == [f"{document} {words}", f"{weights} {words}"]


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "[settings", "a = \0"])
def test_what_is_no_toml_is_refused_by_name(text, tmp_path):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(UsageError, match=r"a\.toml is not a TOML file: "):
        files.read_toml(tmp_path / "a.toml")
