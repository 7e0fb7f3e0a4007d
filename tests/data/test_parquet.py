import io

import numpy as np
import pytest
from PIL import Image

from steadygrad import data
from steadygrad.errors import Failure, UsageError


@pytest.fixture
def root(tmp_path, make_parquet):
    folder = tmp_path / "pets"
    make_parquet(folder / "data" / "train-00000-of-00002.parquet", [0, 1, 1], seed=0)
    make_parquet(folder / "data" / "train-00001-of-00002.parquet", [1, 0], seed=3)
    make_parquet(folder / "data" / "test-00000-of-00001-0a1b2c.parquet", [1, 0], seed=9)
    return folder


def test_the_layout_of_the_hub(root, make_png):
    train, test = data.load(root), data.load(root, "test")
    assert train.labels.tolist() == [0, 1, 1, 1, 0]
    assert (train.classes, test.labels.tolist()) == (("cat", "dog"), [1, 0])
    assert train.ids == tuple(f"pets/train/{i:05d}" for i in range(5))
    for row in range(5):
        assert np.array_equal(train.images[row, 0].numpy(), make_png(row, 6, 5)[0])
    assert data.load(root).fingerprint == train.fingerprint


@pytest.mark.parametrize("names", ["train/0000.parquet", "train.parquet", "data/train.parquet"])
def test_other_layouts(tmp_path, make_parquet, names):
    make_parquet(tmp_path / "pets" / names, [0, 1, 1], names=("img", "fine_label"))
    make_parquet(tmp_path / "pets" / names.replace("train", "test"), [0, 1])
    assert len(data.load(tmp_path / "pets")) == 3
    assert len(data.load(tmp_path / "pets", "test")) == 2


def test_one_file_without_a_split_is_divided(tmp_path, make_parquet, make_png):
    path = make_parquet(tmp_path / "pets.parquet", [0, 1] * 10)
    train, test = data.load(path), data.load(str(path), "test")
    assert {*train.ids, *test.ids} == {f"pets/{i:05d}" for i in range(20)}
    assert test.labels.bincount().tolist() == [2, 2]
    row = int(test.ids[1][-5:])
    assert np.array_equal(test.images[1, 0].numpy(), make_png(row, 6, 5)[0])


def test_one_shard_alone_may_be_asked_for_by_name(root):
    assert len(data.load(root / "data" / "train-00001-of-00002.parquet")) == 2


def test_without_class_names_all_splits_count(tmp_path, make_parquet):
    make_parquet(tmp_path / "pets" / "train.parquet", [0, 1, 4], None)
    make_parquet(tmp_path / "pets" / "test.parquet", [0, 1], None)
    assert data.load(tmp_path / "pets", "test").classes == ("0", "1", "2", "3", "4")


def test_form(root):
    assert data.load(root, size=4, color="rgb").shape == (3, 4, 4)


def test_missing_splits_and_shards(root):
    with pytest.raises(UsageError, match="pets has no split 'validation'; available: test, train"):
        data.load(root, "validation")
    (root / "data" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(Failure, match=r"data lacks shard 1 of 2 beside train-00000-of-00002\.parquet"):
        data.load(root)
    assert len(data.load(root, "test")) == 2


def test_the_same_split_in_two_folders_is_refused(tmp_path, make_parquet):
    for config in ("small", "large"):
        make_parquet(tmp_path / "pets" / config / "train-00000-of-00001.parquet", [0, 1])
    with pytest.raises(UsageError, match=r"split 'train' is in several folders.*large, .*small"):
        data.load(tmp_path / "pets")
    assert len(data.load(tmp_path / "pets" / "small")) == 2


@pytest.mark.parametrize("keep", [0, 7, 0.5, 0.95])
def test_a_truncated_file_is_named(root, keep):
    path = root / "data" / "train-00001-of-00002.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(Failure, match=r"train-00001-of-00002\.parquet is not a readable Parquet file \(truncated\?\)"):
        data.load(root)


def test_a_garbled_file_is_named(root):
    path = root / "data" / "train-00001-of-00002.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * (len(content) // 2) + content[4 + len(content) // 2 :])
    with pytest.raises(Failure, match=r"train-00001-of-00002\.parquet"):
        data.load(root)


def test_a_garbled_column_name_is_named(root):
    path = root / "data" / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes().replace(b"label", b"\xff\xfe\xfdel"))
    with pytest.raises(Failure, match=r"train-00001-of-00002\.parquet is not a readable Parquet file"):
        data.load(root)


def test_a_truncated_or_missing_image_is_named_by_row(tmp_path, make_parquet, make_png):
    whole = make_png(0, 30, 30)[1]
    path = make_parquet(tmp_path / "test.parquet", [0, 1, 0], images=[whole, whole, whole[:200]])
    with pytest.raises(Failure, match=r"image in row 2 of .*test\.parquet is not a readable image"):
        data.load(path, "test")
    path = make_parquet(tmp_path / "test.parquet", [0, 1, 0], images=[whole, None, whole])
    with pytest.raises(Failure, match=r"image in row 1 of .*test\.parquet holds no bytes"):
        data.load(path, "test")


def test_unequal_sizes_name_the_first_other_row(tmp_path, make_parquet, make_png, monkeypatch):
    from steadygrad.data import parquet

    contents = [make_png(0, 6, 5)[1], make_png(0, 6, 5)[1], make_png(0, 8, 5)[1]]
    path = make_parquet(tmp_path / "test.parquet", [0, 1, 0], images=contents)
    monkeypatch.setattr(parquet, "LOOKED_AT", 2)
    with pytest.raises(UsageError, match=r"row 2 of .*test\.parquet is 8 x 5 pixels, .*row 0 of .* is 6 x 5"):
        data.load(path, "test")
    assert data.load(path, "test", size=(6, 5)).shape == (1, 6, 5)


def test_bad_columns_and_labels_are_refused(tmp_path, make_parquet):
    path = tmp_path / "test.parquet"
    with pytest.raises(UsageError, match=r"has no image column \(image or img\); found: photo, label"):
        data.load(make_parquet(path, [0, 1], names=("photo", "label")), "test")
    with pytest.raises(UsageError, match=r"has no label column \(label or labels or fine_label\); found: image, kind"):
        data.load(make_parquet(path, [0, 1], names=("image", "kind")), "test")
    with pytest.raises(UsageError, match=r"column 'label' of .*test\.parquet must hold integer labels, got string"):
        data.load(make_parquet(path, ["cat", "dog"]), "test")
    with pytest.raises(UsageError, match="must hold integer labels, got int64 with 1 empty rows"):
        data.load(make_parquet(path, [0, None]), "test")
    with pytest.raises(UsageError, match=r"within 0\.\.1 \(2 classes\).*-1 at 'test/test/00001' \(-1 marks"):
        data.load(make_parquet(path, [0, -1]), "test")
    with pytest.raises(UsageError, match="the first is 2 at 'test/test/00001'"):
        data.load(make_parquet(path, [0, 2]), "test")
    with pytest.raises(UsageError, match="all 2 samples of test/test are of class 'dog'"):
        data.load(make_parquet(path, [1, 1]), "test")
    with pytest.raises(UsageError, match="test/test is empty"):
        data.load(make_parquet(path, []), "test")


def test_images_may_lie_in_a_plain_binary_column(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    Image.new("L", (3, 2), 255).save(buffer, "PNG")
    pq.write_table(pa.table({"image": [buffer.getvalue()] * 2, "label": [0, 1]}), tmp_path / "test.parquet")
    assert data.load(tmp_path / "test.parquet", "test").tensors()[0].min() == 1
