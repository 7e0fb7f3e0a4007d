"""A label that is no place of a class, at every door: asked about with what to do, in bounded memory; gaps are told."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from steadygrad import data
from steadygrad.errors import UsageError

USUAL = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
WILD = [10**7, 10**9, 2**40, 255, 100]


def arrays(labels: list[int], folder: Path) -> data.Dataset:
    return data.dataset_of((np.zeros((len(labels), 4, 4), np.float32), np.array(labels)))


def npz(labels: list[int], folder: Path) -> data.Dataset:
    np.savez(folder / "pets.npz", x=np.zeros((len(labels), 4, 4)), y=np.array(labels))
    return data.load(folder / "pets.npz", "all")


def npz_of_splits(labels: list[int], folder: Path) -> data.Dataset:
    x, good = np.zeros((len(labels), 4, 4)), np.arange(len(labels)) % 2
    np.savez(folder / "pets.npz", x_train=x, y_train=np.array(labels), x_test=x, y_test=good)
    return data.load(folder / "pets.npz", "test")


def pictures(count: int) -> list[dict[str, Any]]:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    return [{"bytes": buffer.getvalue(), "path": None}] * count


def parquet(labels: list[int], folder: Path) -> data.Dataset:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"image": pictures(len(labels)), "label": labels}), folder / "pets.parquet")
    return data.load(folder / "pets.parquet", "all")


def of_torch(labels: list[int], folder: Path) -> data.Dataset:
    return data.dataset_of([(torch.zeros(1, 4, 4), label) for label in labels])


def of_torch_that_is_large(labels: list[int], folder: Path) -> data.Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steadygrad.data.lazy.MOST_BYTES", 100)
        return of_torch(labels, folder)


def hugging_face(labels: list[int], folder: Path) -> data.Dataset:
    from datasets import Dataset, Features, Value
    from datasets import Image as Picture

    features = Features({"image": Picture(), "label": Value("int64")})
    return data.dataset_of(Dataset.from_dict({"image": pictures(len(labels)), "label": labels}, features=features))


DOORS = [arrays, npz, npz_of_splits, parquet, of_torch, of_torch_that_is_large, hugging_face]
Door = Callable[[list[int], Path], data.Dataset]


@pytest.mark.parametrize("wild", WILD)
@pytest.mark.parametrize("door", DOORS)
def test_a_wild_label_is_asked_about(door: Door, wild: int, tmp_path: Path) -> None:
    tracemalloc.start()
    with pytest.raises(UsageError) as refused:
        door([*USUAL, wild, wild], tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    message = str(refused.value)
    assert f"the label {wild} of " in message
    assert f"comes after 9: 2 of {24 if door is npz_of_splits else 12} samples have it, the first is " in message
    assert "10" in message.partition("the first is ")[2].split(".")[0]  # its place
    assert f"leave them out (keep = y != {wild})" in message
    assert peak < 100 << 20


@pytest.mark.parametrize("door", DOORS)
def test_gaps_are_told(door: Door, tmp_path: Path) -> None:
    found = door([0, 1, 3, 4, 7, 7], tmp_path)
    assert found.classes == tuple("01234567")
    assert "of the labels 0 to 7, 3 do not occur: 2, 5, 6" in found.notes


@pytest.mark.parametrize("door", DOORS)
def test_whole_rows_of_labels_are_not_spoken_of(door: Door, tmp_path: Path) -> None:
    found = door([0, 1, 2, 0, 1, 2], tmp_path)
    assert (found.classes, found.notes) == (("0", "1", "2"), ())


@pytest.mark.parametrize("door", [arrays, of_torch])
def test_a_label_beyond_64_bits_is_refused(door: Door, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        door([0, 1, 2**63 + 1], tmp_path)
    with pytest.raises(UsageError):
        door([0, 1, 2**70], tmp_path)


def test_a_parquet_label_beyond_64_bits_is_refused(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    label = pyarrow.array([0, 2**63 + 1], pyarrow.uint64())
    parquet.write_table(pyarrow.table({"image": pictures(2), "label": label}), tmp_path / "pets.parquet")
    with pytest.raises(UsageError, match=r"the column 'label' of .* holds 9223372036854775809, which is larger than"):
        data.load(tmp_path / "pets.parquet", "all")


def test_the_ways_out_are_ways_out() -> None:
    x, y = np.zeros((6, 4, 4), np.float32), np.array([0, 1, 255, 0, 1, 255])
    keep = y != 255
    assert data.from_arrays(x[keep], y[keep]).classes == ("0", "1")
    assert len(data.from_arrays(x, y, classes=256).classes) == 256
    codes, places = np.unique(y, return_inverse=True)
    assert data.from_arrays(x, places, classes=list(map(str, codes))).classes == ("0", "1", "255")


@pytest.mark.parametrize(("labels", "words"), [([1000, 1001], "the label 1000 of .* is the smallest: 1 of 2 samples")])
def test_codes_are_no_places(labels: list[int], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        arrays(labels, tmp_path)


def test_many_classes_with_a_few_missing_are_taken(tmp_path: Path) -> None:
    labels = sorted(np.random.default_rng(0).choice(1000, 300, replace=False).tolist())
    assert len(arrays(labels, tmp_path).classes) == labels[-1] + 1


def test_more_classes_than_there_may_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="reach 1099000, and there may be 1,000,000 classes at most"):
        data.from_arrays(np.zeros((1100, 1), np.float32), np.arange(1100) * 1000)
    with pytest.raises(
        UsageError, match=r"classes must be a number from 2 to 1,000,000, or a list of names, got 10{7}"
    ):
        data.from_arrays(np.zeros((2, 1), np.float32), np.array([0, 1]), classes=10**7)


@pytest.mark.parametrize("label", [-1, 255])
def test_among_named_classes_what_it_may_mark_is_said(label: int) -> None:
    with pytest.raises(UsageError, match=rf"is {label} at 'arrays/all/00002' \({label} .*leave them out"):
        data.from_arrays(np.zeros((3, 4, 4), np.float32), np.array([0, 1, label]), ["cat", "dog"])


def table(labels: list[Any], folder: Path) -> data.Dataset:
    rows = "".join(f"{i / 100},{label}\n" for i, label in enumerate(labels))
    (folder / "pets.csv").write_text(f"weight,label\n{rows}")
    return data.load(folder / "pets.csv", "all")


@pytest.mark.parametrize("wild", [-1, 255])
def test_a_mark_among_the_numbers_of_a_table_is_asked_about(wild: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"the label {wild} .*2 of 12 rows have it, the first is row 11\."):
        table([*USUAL, wild, wild], tmp_path)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([-1, 1, -1, 1], ("-1", "1")),
        ([-1, 0, 1, 0], ("-1", "0", "1")),
        ([101, 205, 255, 101], ("101", "205", "255")),
        (["--5", "0", "-", "0"], ("-", "--5", "0")),
        (["9" * 400, "1", "9" * 400, "1"], ("1", "9" * 400)),
        ([10**9, 0, 2**40, 0], ("0", "1000000000", "1099511627776")),
    ],
)
def test_other_numbers_of_a_table_are_names(labels: list[int], classes: tuple[str, ...], tmp_path: Path) -> None:
    assert table(labels, tmp_path).classes == classes


def test_folders_with_numbers_are_classes_of_these_names(tmp_path: Path) -> None:
    for title in ("0", "1", "255", str(10**9)):
        (tmp_path / title).mkdir()
        for i in range(2):
            Image.new("L", (4, 4)).save(tmp_path / title / f"{i}.png")
    assert data.load(tmp_path, "all").classes == ("0", "1", "255", "1000000000")
