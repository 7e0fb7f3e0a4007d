"""Folders of photos as people have them: splits and classes under any names, of any size and color."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import photos
from steadygrad import data, progress
from steadygrad.errors import Failure, UsageError


def make(root: Path, *folders: str, count: int = 3, size: tuple[int, int] = (6, 5)) -> Path:
    """Images 0.png, 1.png ... in each folder below the root, of a level of their own."""
    for level, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            Image.new("L", size[::-1], 10 * level + i).save(root / folder / f"{i}.png")
    return root


def both(*splits: str) -> list[str]:
    return [f"{split}/{title}" for split in splits for title in ("cat", "dog")]


@pytest.mark.parametrize(
    ("splits", "training", "judged"),
    [
        (("train", "test"), "train", "test"),
        (("train", "val", "test"), "train", "test"),
        (("train", "val"), "train", "val"),
        (("Train", "Valid"), "Train", "Valid"),
        (("TRAIN", "validation"), "TRAIN", "validation"),
        (("training", "Testing"), "training", "Testing"),
        (("train", "eval"), "train", "eval"),
        (("train", "dev", "extra"), "train", "dev"),
        (("seg_train", "seg_test"), "seg_train", "seg_test"),
        (("train_images", "test_images"), "train_images", "test_images"),
        (("Training Set", "Test Set"), "Training Set", "Test Set"),
        (("train2017", "val2017"), "train2017", "val2017"),
    ],
)
def test_splits_are_found_under_their_usual_names(
    tmp_path: Path, splits: tuple[str, ...], training: str, judged: str
) -> None:
    root = make(tmp_path / "pets", *both(*splits))
    for found, wanted in ((data.load(root, None, training=True), training), (data.load(root, None), judged)):
        assert found.classes == ("cat", "dog")
        assert found.ids == tuple(f"{wanted}/{title}/{i}.png" for title in ("cat", "dog") for i in range(3))
        assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert found.split == wanted
    # By name too, in any case.
    assert data.load(root, judged.upper()).ids == data.load(root, judged).ids == data.load(root, None).ids


def test_splits_of_any_name_are_taken_when_they_are_asked_for(tmp_path: Path) -> None:
    root = make(tmp_path / "pets", *both("monday", "tuesday", "train"))
    assert data.load(root, "monday").ids[0] == "monday/cat/0.png"
    assert data.load(root, "Tuesday").classes == ("cat", "dog")
    with pytest.raises(UsageError, match=r"'train', which looks like a split, beside 'monday', 'tuesday': are its"):
        data.load(root, None)


def test_classes_with_folders_of_the_same_names_are_taken_when_that_is_said(tmp_path: Path) -> None:
    root = make(tmp_path / "traffic", "bus/day", "bus/night", "car/day", "car/night")
    with pytest.raises(UsageError, match=r"all hold 'day', 'night': if they are splits, name them .--train-split bus"):
        data.load(root, None)
    train, test = data.load(root, "train"), data.load(root, "test")
    assert train.classes == test.classes == ("bus", "car")
    assert data.load(root, "bus").classes == ("day", "night")


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["bus", "car", "train"], ("bus", "car", "train")),
        (["train", "test", "val"], ("test", "train", "val")),
        (["dev", "ops"], ("dev", "ops")),
        (["Test", "tube"], ("Test", "tube")),
        (["train", "bus/day", "bus/night"], ("bus", "train")),
        (["cat/more", "dog"], ("cat", "dog")),
        (["a b", "ü", "日本"], ("a b", "ü", "日本")),
        ([str(i) for i in range(12)], tuple(str(i) for i in range(12))),
        (["001", "010", "009", "100"], ("001", "009", "010", "100")),
        (["3", "20"], ("3", "20")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["class_1", "class_10", "class_2"], ("class_1", "class_10", "class_2")),
    ],
)
def test_classes_are_told_from_splits_and_numbers_are_in_their_order(
    tmp_path: Path, folders: list[str], classes: tuple[str, ...]
) -> None:
    root = make(tmp_path / "things", *folders, count=5)
    found = data.load(root, "all")
    assert found.classes == classes
    for name, label in zip(found.ids, found.labels.tolist()):
        assert name.split("/")[0] == classes[label]
    parts = [data.load(root, split) for split in ("train", "test")]
    assert sorted([*parts[0].ids, *parts[1].ids]) == sorted(found.ids)
    assert data.load(root, None).ids == parts[1].ids
    assert ("numerical order" in " ".join(found.notes)) == (list(classes) != sorted(classes))


def test_a_split_called_train_holds_classes_called_train(tmp_path: Path) -> None:
    folders = [f"{split}/{title}" for split in ("train", "val") for title in ("bus", "train", "val")]
    found = data.load(make(tmp_path / "traffic", *folders), None)
    assert (found.classes, found.split) == (("bus", "train", "val"), "val")


def test_of_train_only_a_fifth_of_every_class_is_held_out(tmp_path: Path) -> None:
    root = make(tmp_path / "pets", *both("train"), count=10)
    training, judged = data.load(root, None, training=True), data.load(root, None)
    assert Counter(judged.labels.tolist()) == {0: 2, 1: 2}
    assert Counter(training.labels.tolist()) == {0: 8, 1: 8}
    assert {*training.ids}.isdisjoint(judged.ids)
    assert {*training.ids, *judged.ids} == {*data.load(root, "train").ids}
    assert "there is train only: a fifth of every class" in judged.notes[0]
    with pytest.raises(UsageError, match="no split 'test'; available: train"):
        data.load(root, "test")


def test_a_stand_in_for_test_is_said(tmp_path: Path) -> None:
    root = make(tmp_path / "pets", *both("train", "val"))
    assert data.load(root, None).notes == ("there is no split called test: val stands in for it",)
    assert data.load(root, "val").notes == ()


def test_images_without_a_class_are_left_out_and_said(tmp_path: Path) -> None:
    root = make(tmp_path / "kaggle", *both("train"), "test", count=5)
    found = data.load(root, None)
    assert found.split == "test"
    assert all(name.startswith("train/") for name in found.ids)
    assert f"images in no class folder are left out: those in {root / 'test'}" in found.notes
    (root / "train" / "cover.png").write_bytes((root / "train/cat/0.png").read_bytes())
    (root / "train" / "cat" / "raw.dng").write_bytes(b"x")
    again = data.load(root, None)
    assert "files of other types are left out: 1 .dng" in again.notes
    assert again.ids == found.ids


def test_clutter_is_left_out_in_silence(tmp_path: Path) -> None:
    root = make(tmp_path / "pets", *both("train", "test"))
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
        (root / "test" / "cat" / name).write_bytes(b"x")
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        make(root / "test" / name, "cat")
        make(root / name, "cat")
    (root / "labels.csv").write_text("x")
    (root / "annotations").mkdir()
    found = data.load(root, None)
    assert (found.ids, found.notes) == (data.load(root, "test").ids, ())
    assert len(found) == 6


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = make(tmp_path / "pets", *both("test"))
    elsewhere = make(tmp_path / "elsewhere", *both("train"))
    os.symlink(elsewhere / "train", root / "train", target_is_directory=True)
    os.symlink(elsewhere / "train" / "cat", root / "test" / "cat" / "more", target_is_directory=True)
    os.symlink(root, root / "test" / "dog" / "up", target_is_directory=True)
    assert data.load(root, "train").ids == tuple(f"train/{t}/{i}.png" for t in ("cat", "dog") for i in range(3))
    assert Counter(data.load(root, "test").labels.tolist()) == {0: 6, 1: 3}
    os.symlink(root / "nowhere.png", root / "train" / "cat" / "lost.png")
    with pytest.raises(UsageError, match=r"lost\.png is no file, or a link to nothing: correct or remove it"):
        data.load(root, "train")


def test_names_are_one_however_they_are_spelled(tmp_path: Path) -> None:
    root = make(tmp_path / "fruit", "train/\u00e4pfel", "train/x", "test/a\u0308pfel", "test/x")
    assert data.load(root, "test").labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.load(root, "train").classes == ("x", "\u00e4pfel")
    letters = make(tmp_path / "letters", *(f"{s}/{t}" for s in ("train", "test") for t in "aA"))
    assert data.load(letters, "test").classes == ("A", "a")


def test_files_that_are_alike_stay_two_samples(tmp_path: Path) -> None:
    root = make(tmp_path / "pets", *both("train", "test"))
    (root / "test" / "cat" / "copy of 0.png").write_bytes((root / "test" / "cat" / "0.png").read_bytes())
    found = data.load(root, "test")
    assert len(found) == 7
    assert found.images[0].equal(found.images[found.ids.index("test/cat/copy of 0.png")])


@pytest.mark.parametrize(
    ("folders", "spoil", "words"),
    [
        ([""], None, "holds images, but no class folders: put the images into"),
        (["train", "test"], "rmdir", "class folder 'test' in .* holds no images"),
        (["cat", "dog"], "empty", "class folder 'empty' in .* holds no images"),
        (["cat", "dog"], "heic", r"class folder 'heic' in .* holds no images but 2 \.heic"),
        (["cat"], None, "all 4 samples of pets/train are of class 'cat'"),
        (["pets/cat", "pets/dog"], None, "holds one class folder, 'pets', with folders in it: give .*pets/pets"),
        (["train/Cat", "train/dog", "test/cat", "test/dog"], None, "'cat' and 'Cat' in .* differ in case only"),
        (["train/day", "train/night", "bus", "car"], None, "'train', which looks like a split, beside 'bus', 'car'"),
    ],
)
def test_other_folders_are_refused_with_the_way_out(
    tmp_path: Path, folders: list[str], spoil: str | None, words: str
) -> None:
    root = tmp_path / "pets"
    if spoil == "rmdir":
        for folder in folders:
            (root / folder).mkdir(parents=True)
    elif folders == [""]:
        make(root, "x")
        root /= "x"
    else:
        make(root, *folders, count=5)
    if spoil in ("empty", "heic"):
        (root / spoil).mkdir()
        for i in range(2 * (spoil == "heic")):
            (root / spoil / f"{i}.heic").write_bytes(b"x")
    with pytest.raises(UsageError, match=words):
        data.load(root)


@pytest.mark.parametrize("spoiled", ["train/dog/1.png", "test/cat/2.png"])
def test_a_broken_file_is_named(tmp_path: Path, spoiled: str) -> None:
    root = make(tmp_path / "pets", *both("train", "test"))
    (root / spoiled).write_bytes((root / spoiled).read_bytes()[:40])
    with pytest.raises(Failure, match=f"{spoiled} is not a readable image"):
        data.load(root, spoiled.split("/")[0])


def mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def colored(root: Path, gray: int, color: int, clear: int = 0) -> Path:
    """Images of one level, gray, color and with alpha, in two classes of two splits, in turn."""
    kinds = [("L", 100)] * gray + [("RGB", (200, 100, 0))] * color + [("RGBA", (200, 100, 0, 0))] * clear
    for i, (mode, level) in enumerate(kinds):
        folder = root / ("train", "test")[i % 2] / ("cat", "dog")[i // 2 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (5, 5), level).save(folder / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("gray", "color", "clear", "channels", "said"),
    [
        (5, 7, 0, 3, "5 of 12 images: gray ones are made rgb"),
        (6, 6, 0, 3, "6 of 12 images: gray ones are made rgb"),
        (8, 4, 0, 1, "4 of 12 images: color ones are made gray"),
        (12, 0, 0, 1, ""),
        (0, 12, 0, 3, ""),
        (0, 8, 4, 3, "4 of 12 images: what is transparent becomes white"),
    ],
)
def test_colors_go_by_majority_in_all_splits(
    tmp_path: Path, gray: int, color: int, clear: int, channels: int, said: str
) -> None:
    root = colored(tmp_path / "pets", gray, color, clear)
    train, test = data.load(root, "train"), data.load(root, "test")
    assert train.shape == test.shape == (channels, 5, 5)
    luma = round(0.299 * 200 + 0.587 * 100)
    wanted = {"L": [100] * 3, "RGB": [200, 100, 0], "RGBA": [255] * 3} if channels == 3 else {"L": [100], "RGB": [luma]}
    for found in (train, test):
        for name, image in zip(found.ids, found.images):
            assert image[:, 2, 2].tolist() == wanted[mode(root / name)]
        assert said in " ".join(found.notes)
        assert bool(said) == bool(found.notes)
    assert data.load(root, "test", color="gray").shape == (1, 5, 5)
    assert data.load(root, "test", color="rgb").shape == (3, 5, 5)


def test_depths_mixed_are_scaled_alike(tmp_path: Path) -> None:
    root = make(tmp_path / "scans", "a", "b")
    for i, folder in enumerate("ab"):
        Image.fromarray(np.full((6, 5), 40000, np.uint16)).save(root / folder / "deep.png")
        Image.new("L", (5, 6), 200).save(root / folder / f"plain{i}.png")
    found = data.load(root, "all")
    x = found.tensors()[0]
    levels = {name.split("/")[1]: float(image.max()) for name, image in zip(found.ids, x)}
    assert levels["deep.png"] == pytest.approx(40000 / 65535, abs=1e-6)
    assert levels["plain0.png"] == pytest.approx(200 / 255, abs=1e-6)
    assert "2 of 10 images have 16 bits: scaled like those with 8" in found.notes
    Image.new("RGB", (5, 6), (200, 200, 200)).save(root / "a" / "color.png")
    in_color = data.load(root, "all", color="rgb")
    assert in_color.images.dtype == torch.uint8
    assert int(in_color.images[in_color.ids.index("a/deep.png")].max()) == round(40000 / 257)


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ([(6, 5)], (6, 5)),
        ([(300, 400)], (300, 400)),
        ([(30, 50), (40, 30), (60, 50)], (30, 30)),
        ([(30, 50), (50, 30)], (30, 30)),
        ([(800, 600), (700, 900)], (224, 224)),
        ([(10, 10), (20, 20), (30, 30)], (20, 20)),
    ],
)
def test_sizes_mixed_become_one(tmp_path: Path, sizes: list[tuple[int, int]], wanted: tuple[int, int]) -> None:
    root = tmp_path / "pets"
    for split in ("train", "test"):
        for title in ("cat", "dog"):
            (root / split / title).mkdir(parents=True)
            for i, size in enumerate(sizes):
                Image.new("L", size[::-1], 90).save(root / split / title / f"{i}.png")
    train, test = data.load(root, "train"), data.load(root, "test")
    assert train.shape == test.shape == (1, *wanted)
    assert (train.form.size if train.form else None) == (wanted if len(sizes) > 1 else None)
    many = f"{4 * len(sizes)} images of {len(sizes)} sizes become 1 x {wanted[0]} x {wanted[1]}"
    assert (many in " ".join(train.notes)) == (len(sizes) > 1)
    assert data.load(root, "test", size="8x9", resize="pad").shape == (1, 8, 9)


def test_photos_of_every_kind_together(tmp_path: Path) -> None:
    root = photos.mixed_folder(tmp_path / "my photos", per_class=24)
    train, test = data.load(root, None, training=True), data.load(root, None)
    assert (len(train), len(test)) == (54, 18)
    assert train.classes == test.classes == photos.CLASSES
    assert train.shape == test.shape
    assert train.shape[0] == 3
    assert train.shape[1] == train.shape[2]
    files = [p for p in root.rglob("*") if p.is_file() and p.suffix.lower() in data.folders.ENDINGS]
    assert sorted([*train.ids, *test.ids]) == sorted(
        p.relative_to(root).as_posix() for p in files if not p.name.startswith(".")
    )
    # The upper half is darker or lighter than the lower one, by class: none is turned, bleached or black.
    x, y = test.tensors()
    half = x.shape[2] // 2
    above, below = x[:, :, : half - 2].mean((1, 2, 3)), x[:, :, half + 2 :].mean((1, 2, 3))
    assert torch.equal(torch.bucketize(above - below, torch.tensor([-0.1, 0.2])), y)


def test_what_was_chosen_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    root = colored(tmp_path / "new pets", 5, 7)
    with progress.shown():
        data.load(root, "train")
        data.load(root, "test")
    assert " ".join(capsys.readouterr().err.split()).count("5 of 12 images: gray ones are made rgb") == 1
    assert not caplog.records
    data.load(colored(tmp_path / "others", 4, 8), "train")
    assert "others: 4 of 12 images: gray ones are made rgb" in caplog.text
