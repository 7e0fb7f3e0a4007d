"""Lazy images are the images in memory, decoded when they are asked for."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steadygrad import data
from steadygrad.data import Dataset, lazy, settle
from steadygrad.data.lazy import LazyImages
from steadygrad.errors import Failure, UsageError

COUNT = 300  # more than one piece of a fingerprint


def pair(dtype: torch.dtype, *shape: int) -> tuple[Dataset, Dataset, list[int]]:
    """The same samples in memory and lazy, and the rows that were decoded so far."""
    values = torch.randint(0, 256, (COUNT, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    values = values if dtype == torch.uint8 else values / 255
    asked: list[int] = []

    def read(rows: list[int]) -> Tensor:
        asked.extend(rows)
        return values[rows]

    labels, ids = torch.arange(COUNT) % 3, tuple(f"s{i}" for i in range(COUNT))
    memory = Dataset(values, labels, ("a", "b", "c"), ids)
    return memory, dataclasses.replace(memory, images=LazyImages(read, torch.arange(COUNT), values[0])), asked


def alike(first: Dataset, second: Dataset, *, told_by: str = "pixels") -> None:
    """Both hold the same; where the second one tells its images by the bytes of files, it has other hashes."""
    assert repr(first) == repr(second)
    assert (first.ids, first.shape, first.images.dtype) == (second.ids, second.shape, second.images.dtype)
    assert first.labels.equal(second.labels)
    assert (first.fingerprint == second.fingerprint) == (told_by == "pixels")
    assert (first.content_keys() == second.content_keys()) == (told_by == "pixels")
    assert all(a.equal(b) for a, b in zip(first.tensors(), second.tensors()))
    assert all(a.equal(b) for a, b in zip(first.images, second.images))


KINDS = [(torch.uint8, (3, 4, 5)), (torch.float32, (1, 4, 5)), (torch.float32, (7,))]


@pytest.mark.parametrize(("dtype", "shape"), KINDS)
def test_every_method_gives_the_same(dtype, shape):
    memory, decoded_later, _ = pair(dtype, *shape)
    alike(memory, decoded_later)
    for part in (slice(10, 250, 3), torch.tensor([5, 0, 299]), [7, 2], memory.labels == 1):
        alike(memory.select(part), decoded_later.select(part))
        assert all(a.equal(b) for a, b in zip(memory.batch(part), decoded_later.batch(part)))
    alike(memory.take(20), decoded_later.take(20))
    for first, second in zip(memory.divide(0.2, 1), decoded_later.divide(0.2, 1)):
        alike(first, second)


@given(st.data())
def test_any_chain_of_selections_gives_the_same(choose):
    memory, decoded_later, _ = pair(torch.uint8, 1, 2, 2)
    for _ in range(choose.draw(st.integers(1, 3))):
        seed, count = choose.draw(st.integers(0, 99)), choose.draw(st.integers(1, 40))
        verb = choose.draw(st.sampled_from(["take", "draw", "select"]))
        if verb == "select":
            rows = choose.draw(st.lists(st.integers(0, len(memory) - 1), min_size=1, max_size=9, unique=True))
            memory, decoded_later = memory.select(rows), decoded_later.select(rows)
        else:
            memory, decoded_later = (getattr(d, verb)(count, seed=seed) for d in (memory, decoded_later))
    alike(memory, decoded_later)


def test_only_what_is_asked_for_is_decoded():
    memory, decoded_later, asked = pair(torch.uint8, 1, 2, 2)
    drawn = decoded_later.take(50, seed=3).draw(9, seed=1)
    drawn.divide(0.5, 0)
    assert asked == []
    rows = [memory.ids.index(name) for name in drawn.ids]
    drawn.batch([2, 0])
    assert asked == [rows[2], rows[0]]
    assert drawn.content_keys([4, 1, 4]) == tuple(memory.content_keys()[rows[i]] for i in (4, 1, 4))
    assert asked == [rows[i] for i in (2, 0, 4, 1)]
    drawn.content_keys()
    assert sorted(asked) == sorted(rows)  # each once: there is room for all


def test_the_first_ones_are_held_as_long_as_there_is_room(monkeypatch):
    memory, decoded_later, asked = pair(torch.uint8, 1, 2, 2)
    monkeypatch.setattr(lazy, "MOST_BYTES", 3 * 4)
    for rows in ([5, 6], [7, 8, 6], [8, 7, 5, 8]):
        got = decoded_later.images[rows]
        assert got.equal(memory.images[rows])
        got.zero_()  # what a caller does with them changes nothing
    assert asked == [5, 6, 7, 8, 8, 8]


@pytest.fixture
def small(monkeypatch):
    """Call to have everything lazy that is loaded from here on."""
    return lambda: monkeypatch.setattr(lazy, "MOST_BYTES", 0)


@pytest.mark.parametrize("form", [{}, {"size": (3, 4), "color": "rgb"}])
@pytest.mark.parametrize("kind", ["folder", "parquet", "hub", "npz"])
def test_every_source_gives_the_same(kind, form, tmp_path, make_folder, make_parquet, make_png, small, monkeypatch):
    name = str(tmp_path / "pets")
    if kind == "folder":
        make_folder(tmp_path / "pets", ("cat", "dog"), 10)
    elif kind == "parquet":
        make_parquet(tmp_path / "pets" / "train-00000-of-00002.parquet", [0, 1, 1] * 5, seed=0)
        make_parquet(tmp_path / "pets" / "train-00001-of-00002.parquet", [1, 0] * 5, seed=30)
    elif kind == "npz":
        name += ".npz"
        save_npz(Path(name), COUNT, 6, 5)
    else:
        import datasets

        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
        images = [{"bytes": make_png(i, 6, 5)[1], "path": None} for i in range(9)]
        table = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 1] * 3}, features=features)
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
        name = "hub:me/pets"
    memory = data.load(name, "train", **form)
    small()
    decoded_later = data.load(name, "train", **form)
    assert isinstance(memory.images, Tensor)
    assert isinstance(decoded_later.images, LazyImages)
    told_by = "pixels" if kind == "npz" else "files"
    alike(memory, decoded_later, told_by=told_by)
    alike(memory.take(5, seed=1), decoded_later.take(5, seed=1), told_by=told_by)


def save_npz(path: Path, count: int, *shape: int, **more: np.ndarray) -> None:
    x = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    np.savez(path, **{"x": x, "y": np.arange(count) % 2, **more})


def test_arrays_of_every_layout_stay_in_their_file(tmp_path, small):
    values = np.random.default_rng(0).random((20, 6, 5))
    for x in (values, values[:, :, :, None] * np.ones(3), values[:, 0], np.asfortranarray(values)):
        np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(20) % 2)
        memory = data.from_arrays(x, np.arange(20) % 2, name="a", split="train")
        small()
        alike(memory, data.load(tmp_path / "a.npz"))


def test_compressed_arrays_are_held(tmp_path, small):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((20, 4, 4), np.uint8), y=np.arange(20) % 2)
    small()
    assert isinstance(data.load(tmp_path / "a.npz").images, Tensor)


def test_bad_values_are_named_when_they_are_met(tmp_path, small):
    x = np.zeros((20, 4, 4), np.float32)
    x[7] = np.nan
    np.savez(tmp_path / "bad.npz", x_train=x, y_train=np.arange(20) % 2)
    small()
    loaded = data.load(tmp_path / "bad.npz")
    loaded.batch([6])
    with pytest.raises(UsageError, match=r"bad/train holds NaN \(1 of 2 samples, the first is 'bad/train/00007'\)"):
        loaded.batch([6, 7])


def test_a_damaged_array_is_named(tmp_path, small):
    save_npz(tmp_path / "cut.npz", 20, 4, 4)
    whole = (tmp_path / "cut.npz").read_bytes()
    middle = whole.index(b"NUMPY") + 200
    (tmp_path / "cut.npz").write_bytes(whole[:middle] + b"\xff" * 8 + whole[middle + 8 :])
    small()
    with pytest.raises(Failure, match=r"cut\.npz is not a readable \.npz file"):
        data.load(tmp_path / "cut.npz")


def test_damaged_and_unlike_files_are_named_when_they_are_met(
    tmp_path, make_folder, make_parquet, make_png, small, monkeypatch
):
    root = make_folder(tmp_path / "train", ("cat", "dog"), 5).parent
    (root / "train" / "dog" / "3.png").write_bytes(make_png(0, 6, 5)[1][:40])
    (root / "train" / "dog" / "4.png").write_bytes(make_png(0, 6, 9)[1])
    small()
    loaded = data.load(root)
    assert loaded.shape == (1, 5, 5)
    monkeypatch.setattr(settle, "LOOKED_AT", 1)
    loaded = data.load(root)
    with pytest.raises(Failure, match=r"dog/3\.png is not a readable image"):
        loaded.batch([0, 8])
    with pytest.raises(UsageError, match=r"dog/4\.png is 6 x 9 pixels, .*cat/0\.png is 6 x 5: choose one size"):
        loaded.batch([9])
    path = make_parquet(tmp_path / "test.parquet", [0, 1, 0], images=[make_png(0, 6, 5)[1], make_png(0, 6, 5)[1], None])
    loaded = data.load(path, "test")
    loaded.batch([1, 0])
    with pytest.raises(Failure, match=r"image in row 2 of .*test\.parquet holds no bytes"):
        loaded.batch([1, 2])


def test_a_large_folder_takes_no_memory_for_what_is_not_used(tmp_path, make_folder, small):
    root = make_folder(tmp_path / "train", ("cat", "dog"), 30, (300, 300)).parent
    small()
    tracemalloc.start()
    part = data.load(root).take(4, seed=0)
    part.batch([0])
    grown = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert grown < 6 * 300 * 300


def test_harden_compares_lazy_samples_too():
    from steadygrad.audit.harden import _check_unseen

    memory, decoded_later, _ = pair(torch.uint8, 1, 2, 2)
    _check_unseen(decoded_later.take(20), [decoded_later.select(slice(20, 40))])
    with pytest.raises(UsageError, match="5 of 20 test samples are among those that are trained on"):
        _check_unseen(memory.take(20), [decoded_later.select(slice(15, 40))])


def test_training_is_the_same():
    import steadygrad as sg

    memory, decoded_later, _ = pair(torch.uint8, 1, 8, 8)
    found = [
        sg.fit(sg.models.build("mlp", d.shape, d.classes, seed=0), sg.defenses.Plain(), *d.divide(0.2, 0),
               settings=sg.FitSettings(epochs=1)).classifier
        for d in (memory, decoded_later)
    ]  # fmt: skip
    assert all(a.equal(b) for a, b in zip(*(model.state_dict().values() for model in found)))


def test_groups_of_rows_are_read_once_for_neighbors(tmp_path, make_parquet, small, monkeypatch):
    import pyarrow.parquet as pq

    from steadygrad.data import parquet

    table = pq.read_table(make_parquet(tmp_path / "whole.parquet", [0, 1] * 20))
    pq.write_table(table, tmp_path / "pets.parquet", row_group_size=6)
    memory = data.load(tmp_path / "pets.parquet", "test")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    asked: list[int] = []
    column = parquet._column
    monkeypatch.setattr(parquet, "_column", lambda path, group: (asked.append(group), column(path, group))[1])
    monkeypatch.setattr(parquet, "_MOST_BYTES", 0)
    small()
    decoded_later = data.load(tmp_path / "pets.parquet", "test")
    asked.clear()
    rows = torch.randperm(len(memory)).tolist()
    assert decoded_later.batch(rows)[0].equal(memory.batch(rows)[0])
    assert asked == sorted(set(asked))
    asked.clear()
    for row in rows:  # as in a training, of which each step needs other groups
        assert decoded_later.batch([row])[0].equal(memory.batch([row])[0])
    assert max(Counter(asked).values()) <= 3  # the fourth time that they are read: from here on rows are read alone
    assert [*(tmp_path / "caches" / "steadygrad").iterdir()] == []


def test_groups_are_read_again_where_nothing_can_be_written(tmp_path, make_parquet, small, monkeypatch):
    from steadygrad.data import parquet

    path = make_parquet(tmp_path / "pets.parquet", [0, 1] * 5)
    memory = data.load(path, "all")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(parquet, "_MOST_BYTES", 0)
    small()
    decoded_later = data.load(path, "all")
    for _ in range(5):
        decoded_later.images.read.files.column.cache_clear()
        assert decoded_later.batch([3])[0].equal(memory.batch([3])[0])
