import numpy as np
import pytest
import torch

from steadygrad import data
from steadygrad.errors import UsageError


@pytest.fixture(autouse=True)
def _no_local_data(monkeypatch):
    monkeypatch.delenv("STEADYGRAD_DATA", raising=False)


def test_digits_are_exact_sixteenths_in_a_fixed_split():
    from sklearn.datasets import load_digits

    train, test = data.load("digits"), data.load("digits", "test")
    assert (len(train), len(test), train.shape) == (1297, 500, (1, 8, 8))
    assert test.labels.bincount().tolist() == [50] * 10
    assert {*train.ids, *test.ids} == {f"digits/{i:05d}" for i in range(1797)}
    bundle = load_digits()
    for part in (train, test):
        rows = [int(i[-5:]) for i in part.ids]
        assert np.array_equal(part.images[:, 0].numpy() * 16, bundle.images[rows])
        assert np.array_equal(part.labels.numpy(), bundle.target[rows])
    # The split must never move: every result on digits refers to it.
    assert test.fingerprint == "940e75724ab329027bb0"


def test_digits_in_another_form():
    assert data.load("digits", "test", size=16, color="rgb").shape == (3, 16, 16)
    with pytest.raises(UsageError, match="no split 'valid'; available: all, test, train"):
        data.load("digits", "valid")


def test_digits_do_not_touch_the_global_generators():
    torch.manual_seed(5)
    state, other = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    data.load("digits", "test").divide(0.2, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], other)  # noqa: NPY002


def test_the_local_folder_comes_before_the_hub(tmp_path, monkeypatch, make_parquet, make_folder):
    make_parquet(tmp_path / "mnist" / "data" / "test-00000-of-00001.parquet", [0, 1])
    make_folder(tmp_path / "my_pets" / "test", ["cat", "dog"], 2)
    monkeypatch.setenv("STEADYGRAD_DATA", str(tmp_path))
    assert data.load("mnist", "test").ids == ("mnist/test/00000", "mnist/test/00001")
    assert data.load("my_pets", "test").name == "my_pets"


def test_a_path_needs_no_slash(tmp_path, monkeypatch, make_folder):
    make_folder(tmp_path / "pets" / "test", ["cat", "dog"], 2)
    monkeypatch.chdir(tmp_path)
    assert data.load("pets", "test").name == "pets"
    assert data.load("./pets", "test").name == "pets"


def test_unknown_names_list_the_near_ones(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no data set, file or folder 'minst'; did you mean 'mnist'"):
        data.load("minst")
    (tmp_path / "retina").mkdir()
    monkeypatch.setenv("STEADYGRAD_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="'retinas'; did you mean 'retina'"):
        data.load("retinas")
    with pytest.raises(UsageError, match="name must be a path, got ''"):
        data.load("")


def test_missing_and_foreign_paths(tmp_path, monkeypatch):
    for path in (tmp_path / "gone", str(tmp_path / "gone"), "gone.npz", "owner/gone"):
        with pytest.raises(UsageError, match=r"there is no file or folder .*gone.*hub:owner/name.*mnist"):
            data.load(path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"cannot read .*notes\.txt: data is an image folder"):
        data.load(tmp_path / "notes.txt")
    monkeypatch.setenv("STEADYGRAD_DATA", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match=r"\$STEADYGRAD_DATA is .*gone', which is not a folder"):
        data.load("mnist")


def test_rows_are_distinct():
    assert len({row.name for row in data.DATASETS}) == len(data.DATASETS)
    assert data.DATASETS[0].name == "digits"
    assert all(row.summary for row in data.DATASETS)
