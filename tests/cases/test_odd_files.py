"""Folders and files that are no data: links in circles or to nothing, pipes, images without pixels, names of none."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steadygrad import data, models
from steadygrad.errors import Failure, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for title in ("cat", "dog"):
        (tmp_path / "pets" / title).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (6, 5), 30 * i).save(tmp_path / "pets" / title / f"{i}.png")
    return tmp_path / "pets"


LEFT_OUT: dict[str, Callable[[Path], None]] = {
    "a class with a link to the root": lambda root: os.symlink(root, root / "cat" / "me"),
    "a class that is a link to the root": lambda root: os.symlink(root, root / "zebra"),
    "a class that is a link to where it is": lambda root: os.symlink(".", root / "zebra"),
    "a link to nothing beside the classes": lambda root: os.symlink("nowhere", root / "zebra"),
    "a pipe": lambda root: os.mkfifo(root / "cat" / "9"),
    "a pipe called as a table": lambda root: os.mkfifo(root / "pets.csv"),
    "a pipe called as Parquet": lambda root: os.mkfifo(root / "pets.parquet"),
    "a folder called as an image": lambda root: (root / "cat" / "9.png").mkdir(),
}

REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a link to itself": (
        lambda root: os.symlink("zebra", root / "zebra"),
        "zebra cannot be followed .* to itself",
    ),
    "an image that is one": (lambda root: os.symlink("9.png", root / "cat" / "9.png"), "9.png cannot be followed"),
    "an image that is a link to nothing": (
        lambda root: os.symlink("nowhere.png", root / "cat" / "9.png"),
        "9.png is no file, or a link to nothing: correct or remove it",
    ),
    "an image that is a pipe": (lambda root: os.mkfifo(root / "cat" / "9.png"), "9.png is no file, or a link to"),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_is_no_image_is_left_out_and_not_waited_for(what: str, root: Path) -> None:
    LEFT_OUT[what](root)
    found = data.load(root, "all")
    assert (len(found), found.classes, found.tensors()[0].shape) == (6, ("cat", "dog"), (6, 1, 5, 6))


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_called_an_image_and_is_none_is_refused(what: str, root: Path) -> None:
    make, words = REFUSED[what]
    make(root)
    with pytest.raises(UsageError, match=words):
        data.load(root, "all")


@pytest.mark.parametrize("ending", ["npz", "csv", "parquet"])
def test_a_pipe_is_no_data(ending: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"pets.{ending}")
    with pytest.raises(UsageError, match=rf"cannot read .*pets\.{ending}: data is an image folder"):
        data.load(tmp_path / f"pets.{ending}")


def png(width: int, height: int) -> bytes:
    """An image file that says this size."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * (width + 1) * min(height, 10))),
        (b"IEND", b""),
    ]
    chunks = (struct.pack(">I", len(v)) + k + v + struct.pack(">I", zlib.crc32(k + v)) for k, v in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(5, 0), (0, 5), (100_000, 100_000)])
@pytest.mark.parametrize("place", ["0.png", "9.png"])
def test_an_image_without_pixels_or_with_too_many_is_named(size: tuple[int, int], place: str, root: Path) -> None:
    (root / "cat" / place).write_bytes(png(*size))
    with pytest.raises(Failure, match=rf"{place} is not a readable image .*; replace or remove it"):
        data.load(root, "all").tensors()


@pytest.mark.parametrize("shape", [(4, 1, 0, 4), (4, 0), (4, 0, 4, 4)])
@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_arrays_without_pixels_are_refused(shape: tuple[int, ...], kind: type) -> None:
    with pytest.raises(UsageError, match="there is nothing in them"):
        data.from_arrays(np.zeros(shape, kind), np.array([0, 1, 0, 1]), channels="first")


@pytest.mark.parametrize("name", ["./" + "x" * 5000, "x" * 5000, "./a\0b"])
def test_names_that_no_file_can_have_are_refused(name: str) -> None:
    for load in (data.load, models.load):
        with pytest.raises((Failure, UsageError)):
            load(name)


def test_two_classes_of_one_name_are_told() -> None:
    x, y = np.zeros((4, 1, 4, 4), np.float32), np.array([0, 1, 2, 3])
    assert data.from_arrays(x, y, ["cat", "dog", "cat ", "Dog"]).notes == ("several classes are called 'cat'",)
    assert data.from_arrays(x, y, ["cat", "dog", "Cat", "Dog"]).notes == ()


@pytest.mark.parametrize("ids", [[1, 2], [b"a", b"b"], [None, None], ["a", "a"], "ab", ["a"], np.arange(2)])
def test_ids_that_are_no_names_are_refused(ids: object) -> None:
    with pytest.raises(UsageError, match="ids"):
        data.from_arrays(np.zeros((2, 1, 4, 4), np.float32), np.array([0, 1]), ids=ids)  # type: ignore[arg-type]


@pytest.mark.parametrize("bounds", [np.array(1.0), np.array([]), np.array([0, 1, 2]), np.array([0, np.inf])])
def test_bounds_in_a_file_are_two_numbers(bounds: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "pets.npz", x=np.zeros((4, 4, 4)), y=np.array([0, 1, 0, 1]), bounds=bounds)
    with pytest.raises(UsageError, match="bounds must be"):
        data.load(tmp_path / "pets.npz")


@pytest.mark.parametrize(
    ("told", "classes"),
    [
        (np.array([b"cat", b"caf\xe9"]), ("cat", r"caf\xe9")),
        (np.array(3), ("0", "1", "2")),
        (np.array([[7, 8]]), ("7", "8")),
    ],
)
def test_classes_in_a_file_are_names_or_their_number(
    told: np.ndarray, classes: tuple[str, ...], tmp_path: Path
) -> None:
    np.savez(tmp_path / "pets.npz", x=np.zeros((4, 4, 4)), y=np.array([0, 1, 0, 1]), classes=told)
    assert data.load(tmp_path / "pets.npz", "all").classes == classes


@pytest.mark.parametrize("names", ['"ab"', "5", "[]", '[["a"], "b"]', "[1, null]", "[" * 100_000])
def test_names_in_parquet_that_are_none_are_not_taken(names: str, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    pixels = [{"bytes": png(4, 4), "path": None}] * 2
    table = pyarrow.table({"image": pixels, "label": [0, 1]})
    told = f'{{"info": {{"features": {{"label": {{"names": {names}}}}}}}}}'
    parquet.write_table(table.replace_schema_metadata({"huggingface": told}), tmp_path / "pets.parquet")
    assert data.load(tmp_path / "pets.parquet", "all").classes == ("0", "1")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"id2label": 5}', "[null, 1]", '[{"a": 1}, "b"]', '[[], "a"]', "[0.5, 1.5]"]
)
def test_class_names_that_are_no_texts_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(UsageError, match=r"the class names .*names\.json"):
        models.class_names.read_class_names(tmp_path / "names.json")


@pytest.mark.parametrize(("name", "text"), [("names.txt", "cat\ndog"), ("names.json", '["cat", "dog"]')])
def test_class_names_as_windows_writes_them(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert models.class_names.read_class_names(tmp_path / name) == ("cat", "dog")
