import zipfile

import numpy as np
import pytest
import torch

from steadygrad import data
from steadygrad.errors import Failure, UsageError


def images(count: int = 20, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *(shape or (4, 3))), dtype=np.uint8)


def labels(count: int = 20) -> np.ndarray:
    return np.arange(count) % 2


@pytest.mark.parametrize(
    ("shape", "order"),
    [((4, 5), (0, 1, 2)), ((3, 4, 5), (0, 1, 2, 3)), ((4, 5, 3), (0, 3, 1, 2)), ((4, 5, 1), (0, 3, 1, 2))],
)
def test_channels_come_first_whatever_the_layout(shape, order):
    x = images(6, *shape)
    loaded = data.from_arrays(x, labels(6))
    wanted = x.transpose(order)
    assert loaded.images.dtype == torch.uint8
    assert np.array_equal(loaded.images.numpy(), wanted if wanted.ndim == 4 else wanted[:, None])


def test_tensors_floats_features_and_names():
    x = torch.rand(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loaded = data.from_arrays(x, torch.tensor([0, 2, 1, 0], dtype=torch.int32), name="table")
    assert loaded.shape == (7,)
    assert loaded.images.dtype == torch.float32
    assert loaded.classes == ("0", "1", "2")
    assert loaded.ids[1] == "table/all/00001"
    assert data.from_arrays(images(), labels(), 5).classes == ("0", "1", "2", "3", "4")
    assert data.from_arrays(images(), labels(), ["x", "y"], ids=[f"n{i}" for i in range(20)]).ids[3] == "n3"


def test_later_changes_of_the_arrays_do_not_reach_the_data():
    for x in (images(), torch.from_numpy(images())):
        loaded = data.from_arrays(x, labels())
        before = loaded.images.clone()
        x[:] = 0
        assert torch.equal(loaded.images, before)


def test_8_bit_features_are_scaled():
    assert data.from_arrays(np.full((2, 3), 255, np.uint8), [0, 1]).images.max() == 1


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (images().astype(np.int64), labels(), "must be uint8 or floats.*int64"),
        (images().astype(np.uint16), labels(), "must be uint8 or floats"),
        (
            images().astype(object),
            labels(),
            "must be a tensor of real numbers .*got a NumPy array of object",
        ),
        (images(20, 4, 4, 4), labels(), r"\(20, 4, 4, 4\), which may be 4 channels"),
        (images(), labels(19), "20 samples in x but 19 labels"),
        (images(), labels().astype(float), "integer labels"),
        (images(), labels()[:, None], r"integer labels of shape \(N,\).*\(20, 1\)"),
        (images(), labels() == 0, "integer labels"),
        (images(), labels() - 1, "-1 marks unlabeled"),
        (images(), labels() * 0, "all 20 samples of arrays/all are of class '0': a classifier needs"),
        (images()[:0], labels()[:0], "arrays/all is empty"),
        (images() / 255 * 2 - 1, labels(), "did you normalize"),
    ],
)
def test_bad_arrays_are_refused(x, y, message):
    with pytest.raises(UsageError, match=message):
        data.from_arrays(x, y)


def test_npz_with_splits(tmp_path):
    path = tmp_path / "shapes.npz"
    np.savez(path, x_train=images(6), y_train=labels(6), x_test=images(4), y_test=np.array([0, 0, 1, 2]))
    train, test = data.load(path), data.load(str(path), "test")
    assert (len(train), len(test)) == (6, 4)
    assert train.classes == test.classes == ("0", "1", "2")
    assert test.ids == tuple(f"shapes/test/{i:05d}" for i in range(4))
    assert np.array_equal(test.images.numpy()[:, 0], images(4))


def test_npz_without_splits_is_divided_by_a_fixed_rule(tmp_path):
    path = tmp_path / "shapes.npz"
    np.savez(path, x=images(), y=labels(), classes=np.array(["round", "square"]))
    train, test = data.load(path, "train"), data.load(path, "test")
    assert test.classes == ("round", "square")
    assert test.labels.bincount().tolist() == [2, 2]
    assert {*train.ids, *test.ids} == {f"shapes/{i:05d}" for i in range(20)}
    assert len(train) + len(test) == 20
    row = int(test.ids[0][-5:])
    assert np.array_equal(test.images[0, 0].numpy(), images()[row])
    assert data.load(path, "test").fingerprint == test.fingerprint


def test_npz_of_features_and_of_another_form(tmp_path):
    path = tmp_path / "table.npz"
    np.savez(path, x=images(20, 9) / 255, y=labels())
    assert data.load(path).shape == (9,)
    with pytest.raises(UsageError, match="size and color are for images"):
        data.load(path, size=4)
    np.savez(path, x=images(20, 6, 6, 3), y=labels())
    assert data.load(path, size=(3, 2), color="gray").shape == (1, 3, 2)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_bad_npz_files_are_refused(tmp_path):
    path = tmp_path / "bad.npz"
    with pytest.raises(UsageError, match=r"bad\.npz must hold arrays x and y.*found: pixels, y"):
        data.load(save(path, pixels=images(), y=labels()))
    with pytest.raises(UsageError, match=r"bad.npz has no split 'test'; available: train"):
        data.load(save(path, x_train=images(), y_train=labels()), "test")
    with pytest.raises(UsageError, match=r"no split 'validation'; available: all, test, train"):
        data.load(save(path, x=images(), y=labels()), "validation")
    with pytest.raises(UsageError, match=r"array 'y' of .*bad\.npz holds Python objects"):
        data.load(save(path, x=images(), y=np.array([{}] * 20, dtype=object)))
    with pytest.raises(UsageError, match=r"bad/all.*\[-1, 1\].*--bounds low,high"):
        data.load(save(path, x=np.array([[-1.0], [1.0]]), y=np.array([0, 1])))
    with pytest.raises(UsageError, match="bad/all holds NaN"):
        data.load(save(path, x=np.array([[np.nan], [1.0]]), y=np.array([0, 1])))
    with pytest.raises(UsageError, match=r"y of .*bad\.npz \(y\) must hold numbers, got texts"):
        data.load(save(path, x=images(), y=np.array(["a", "b"] * 10)))


def test_truncated_and_foreign_npz_files_are_named(tmp_path):
    path = save(tmp_path / "cut.npz", x=images(), y=labels())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Failure, match=r"cut\.npz is not a readable \.npz file"):
        data.load(path)
    middle = whole.index(b"NUMPY") + 200
    path.write_bytes(whole[:middle] + b"\xff" * 8 + whole[middle + 8 :])
    with pytest.raises(Failure, match=r"cut\.npz is not a readable \.npz file"):
        data.load(path)
    method = whole.index(b"PK\x01\x02") + 10
    path.write_bytes(whole[:method] + b"\x63" + whole[method + 1 :])
    with pytest.raises(Failure, match=r"cut\.npz is not a readable .*compression method"):
        data.load(path)
    path.write_bytes(b"\x80\x04N.")
    with pytest.raises(Failure, match=r"cut\.npz.*pickle"):
        data.load(path)


@pytest.mark.parametrize("bounds", [0.5, [0.0], ["low", "high"], [1j, 1]])
def test_bounds_of_an_npz_file_are_two_numbers(bounds, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((8, 4, 4), np.float32), y=np.arange(8) % 2, bounds=bounds)
    with pytest.raises(UsageError, match="bounds"):
        data.load(tmp_path / "a.npz", "all")


def test_a_member_without_the_header_of_an_array_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"no array")
        archive.writestr("y.npy", b"no array")
    with pytest.raises(Failure, match=r"a\.npz is not a readable \.npz file \(truncated\?\): x is no array"):
        data.load(tmp_path / "a.npz", "all")
