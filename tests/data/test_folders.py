import os
import shutil

import numpy as np
import pytest
from PIL import Image

from steadygrad import data
from steadygrad.data import folders
from steadygrad.errors import Failure, UsageError


@pytest.fixture
def root(tmp_path, make_folder):
    make_folder(tmp_path / "pets" / "train", ["dog", "cat"], 3)
    make_folder(tmp_path / "pets" / "test", ["cat", "dog"], 2)
    return tmp_path / "pets"


def test_folder_with_splits(root):
    train, test = data.load(root), data.load(str(root), "test")
    assert (train.name, train.split, train.classes) == ("pets", "train", ("cat", "dog"))
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.ids == ("test/cat/0.png", "test/cat/1.png", "test/dog/0.png", "test/dog/1.png")
    assert np.array_equal(test.images[3, 0].numpy(), np.asarray(Image.open(root / test.ids[3])))
    assert data.load(root, "test").fingerprint == test.fingerprint


def test_a_folder_is_listed_once_and_again_after_a_change(root, monkeypatch):
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(str(path)), scandir(path))[1])
    monkeypatch.setattr(folders, "_TICK", 0)
    first = data.load(root)
    assert data.load(root).ids == first.ids
    assert data.load(root, "test").ids[0] == "test/cat/0.png"
    assert listed.count(str(root / "train" / "cat")) == 1
    Image.new("L", (5, 6)).save(root / "train" / "cat" / "new.png")
    assert {*data.load(root).ids} - {*first.ids} == {"train/cat/new.png"}
    (root / "train" / "cat" / "new.png").unlink()
    shutil.move(root / "train" / "dog", root / "train" / "cow")
    assert "train/cow/0.png" in data.load(root, "train").ids


def test_folder_without_splits_is_divided_by_a_fixed_rule(tmp_path, make_folder):
    root = make_folder(tmp_path / "pets", ["cat", "dog"], 10)
    train, test = data.load(root), data.load(root, "test")
    assert (train.labels.bincount().tolist(), test.labels.bincount().tolist()) == ([8, 8], [2, 2])
    assert not {*train.ids} & {*test.ids}
    # A new sample of one class leaves the split of the other class as it was.
    Image.new("L", (5, 6)).save(root / "dog" / "new.png")
    again = data.load(root, "test")
    assert [i for i in again.ids if i.startswith("cat/")] == [i for i in test.ids if i.startswith("cat/")]


def test_other_and_hidden_files_are_left_out_and_subfolders_read(root):
    (root / "test" / "cat" / "notes.txt").write_text("x")
    (root / "test" / "cat" / ".hidden.png").write_text("x")
    (root / "test" / ".cache").mkdir()
    (root / "test" / "cat" / "more").mkdir()
    (root / "test" / "cat" / "0.png").rename(root / "test" / "cat" / "more" / "0.png")
    assert data.load(root, "test").ids[:2] == ("test/cat/1.png", "test/cat/more/0.png")


def test_size_and_color(root):
    Image.new("RGB", (9, 4)).save(root / "test" / "cat" / "1.png")
    assert data.load(root, "test").shape == data.load(root).shape == (1, 5, 5)
    assert data.load(root, "test", color="rgb", size=(7, 8)).shape == (3, 7, 8)
    assert data.load(root, "test", color="gray", size=7).shape == (1, 7, 7)


def test_a_truncated_image_is_named(root):
    path = root / "train" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(Failure, match=r"dog.1\.png is not a readable image \(truncated\?\)"):
        data.load(root)


def test_bad_folders_are_refused(tmp_path, root, make_folder):
    with pytest.raises(UsageError, match=r"pets has no split 'val'; available: test, train"):
        data.load(root, "val")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match="nothing holds no class folders"):
        data.load(tmp_path / "nothing")
    (root / "train" / "bird").mkdir()
    with pytest.raises(UsageError, match=r"class folder 'bird' in .*pets holds no images \(.*\.bmp"):
        data.load(root)
    one = make_folder(tmp_path / "one", ["cat"], 5)
    with pytest.raises(UsageError, match="all 4 samples of one/train are of class 'cat'"):
        data.load(one)
    make_folder(tmp_path / "few" / "train", ["cat", "dog"], 1)
    (tmp_path / "few" / "test").mkdir()
    with pytest.raises(UsageError, match=r"few has no split 'test'; available: train"):
        data.load(tmp_path / "few", "test")
