"""Files that are decoded when they are asked for are told from others by their bytes, each of which is read once."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steadygrad import data
from steadygrad.data import Dataset, image_files, lazy
from steadygrad.data.form import Form
from steadygrad.data.hashes import _NAME, hash_of
from steadygrad.data.images import decode
from steadygrad.data.mean_image import mean_image
from steadygrad.errors import Failure, UsageError


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """All is lazy, and the user's folder of caches is a new one."""
    monkeypatch.setattr(lazy, "MOST_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@pytest.fixture
def pets(tmp_path, make_folder) -> Path:
    return make_folder(tmp_path / "pets", ("cat", "dog"), 10)


class Counted:
    """What is read and decoded since the last look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[str] = []
        self.decoded: list[str] = []
        content, image = image_files._hashed, image_files.decode
        monkeypatch.setattr(image_files, "_hashed", lambda file: (self.read.append(file[0]), content(file))[1])
        monkeypatch.setattr(
            image_files, "decode", lambda c, f, where: (self.decoded.append(where), image(c, f, where))[1]
        )

    def since(self) -> tuple[int, int]:
        found = len(self.read), len(self.decoded)
        self.read.clear()
        self.decoded.clear()
        return found


@pytest.fixture
def counted(monkeypatch) -> Counted:
    return Counted(monkeypatch)


def keys(root: Path, **more: Any) -> tuple[str, tuple[str, ...]]:
    found: Dataset = data.load(root, "all", **more)
    return found.fingerprint, found.content_keys()


def test_each_file_is_read_once_and_none_is_decoded(pets, counted):
    first = keys(pets)
    assert counted.since() == (20, 1)  # one says the shape
    assert keys(pets) == first
    assert counted.since() == (0, 1)
    os.utime(pets / "cat" / "3.png", (1, 1))
    assert keys(pets) == first
    assert counted.since() == (1, 1)
    assert keys(pets, verify=True) == first
    assert counted.since() == (20, 1)


def test_of_a_draw_only_its_files_are_read(pets, counted):
    drawn = data.load(pets, "all").draw(4, seed=1)
    counted.since()
    assert len({*drawn.content_keys(), drawn.fingerprint}) == 5
    assert sorted(counted.read) == sorted(str(pets / name) for name in drawn.ids)
    assert counted.decoded == []
    drawn.tensors()
    assert sorted(counted.decoded) == sorted(str(pets / name) for name in drawn.ids)


def test_hashes_are_of_bytes_and_form_and_not_of_place_or_time(pets, tmp_path):
    first = keys(pets)
    shutil.copytree(pets, tmp_path / "there" / "pets", ignore=shutil.ignore_patterns(_NAME))
    os.utime(tmp_path / "there" / "pets" / "dog" / "0.png", (1, 1))
    assert keys(tmp_path / "there" / "pets") == first
    sized = keys(pets, size=(6, 5), resize="pad")
    assert sized[0] != first[0]
    assert {*sized[1]}.isdisjoint(first[1])


def test_a_change_that_size_and_time_do_not_show_is_met(pets):
    first, path = keys(pets), pets / "dog" / "4.png"
    before, about = path.read_bytes(), path.stat()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    loaded = data.load(pets, "all")
    assert (loaded.fingerprint, loaded.content_keys()) == first
    with pytest.raises(Failure, match=r"dog/4\.png is not what it was when its hash was taken.*--verify"):
        loaded.tensors()
    now = keys(pets, verify=True)
    assert now[0] != first[0]
    assert [a == b for a, b in zip(now[1], first[1])].count(False) == 1
    assert keys(pets) == now


def test_a_folder_that_may_not_be_written_has_its_hashes_elsewhere(pets, tmp_path, counted):
    pets.chmod(0o555)
    first = keys(pets)
    assert not (pets / _NAME).exists()
    assert len([*(tmp_path / "caches" / "steadygrad").iterdir()]) == 1
    counted.since()
    assert keys(pets) == first
    assert counted.since() == (0, 1)
    pets.chmod(0o755)


def test_damaged_hashes_are_made_anew(pets, counted):
    first = keys(pets)
    counted.since()
    whole = (pets / _NAME).read_bytes()
    for damaged in (b"not a database, but longer than the header of one" * 90, whole[:4096] + b"?" * 4096):
        (pets / _NAME).write_bytes(damaged)
        assert keys(pets) == first
        assert counted.since() == (20, 1)
        assert keys(pets) == first
        assert counted.since() == (0, 1)
    (pets / _NAME).unlink()
    (pets / _NAME).mkdir()  # nothing can be kept
    assert keys(pets) == first
    assert counted.since() == (20, 1)


@pytest.mark.parametrize("kind", ["parquet", "hub"])
def test_rows_are_told_by_their_bytes_too(kind, tmp_path, make_parquet, make_png, counted):
    if kind == "parquet":
        path = make_parquet(tmp_path / "pets" / "train-00000-of-00001.parquet", [0, 1] * 5)
        loaded = data.load(path.parent, "train")
    else:
        import datasets

        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
        images = [{"bytes": make_png(i, 6, 5)[1], "path": None} for i in range(10)]
        table = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 5}, features=features)
        loaded = data.dataset_of(table)
    drawn = loaded.draw(4)
    counted.since()
    assert len({*drawn.content_keys(), drawn.fingerprint}) == 5
    assert counted.since() == (4, 0)
    if kind == "parquet":
        assert data.load(path.parent, "train").draw(4).content_keys() == drawn.content_keys()
        assert counted.since() == (0, 1)


def test_the_mean_image_is_made_once(pets, tmp_path, counted):
    loaded = data.load(pets, "all").draw(12)
    counted.since()
    mean = mean_image(loaded)
    assert mean.equal(loaded.tensors()[0].double().mean(0).float())
    assert counted.since() == (12, 24)
    assert mean_image(loaded).equal(mean)
    assert counted.since() == (0, 0)
    next((tmp_path / "caches" / "steadygrad").glob("mean-*")).write_bytes(b"cut")
    assert mean_image(loaded).equal(mean)


def test_harden_tells_files_apart_without_decoding_them(pets, counted):
    from steadygrad.audit.harden import _check_unseen

    loaded = data.load(pets, "all")
    first, second = loaded.divide(0.5, seed=0)
    counted.since()
    _check_unseen(first, [second])
    with pytest.raises(UsageError, match="10 of 10 test samples are among those that are trained on"):
        _check_unseen(first, [loaded])
    with pytest.raises(UsageError, match="10 of 10 test samples have the content"):
        _check_unseen(first, [dataclasses.replace(first, ids=second.ids)])
    assert counted.since() == (20, 0)


def test_threads_read_and_decode_the_same(pets, monkeypatch):
    one = data.load(pets, "all")
    values, found = one.tensors()[0], one.content_keys()
    monkeypatch.setattr(image_files.torch, "get_num_threads", lambda: 3)
    many = data.load(pets, "all", verify=True)
    assert many.content_keys() == found
    assert many.tensors()[0].equal(values)


def test_decoding_has_a_number_that_changes_with_it(tmp_path):
    """If this fails, files give other pixels than they did: raise `_DECODING`, and write down the new hash."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    content, digests = (tmp_path / "a.png").read_bytes(), []
    for form in (Form.of(None, None, None), Form.of(8, "rgb", "crop"), Form.of(8, "gray", "pad")):
        digests.append(hash_of(decode(content, form, "a").tobytes()).hex()[:8])
    assert (image_files._DECODING, digests) == (1, ["c37966aa", "efec332c", "4f1f98cd"])
