"""A folder of photos as people have it, through the commands, without any preparation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import photos
from cli.commands import call, done, refused
from steadygrad import models
from steadygrad.data.data_plan import DataPlan

TRAIN = ("--model", "mlp:hidden=[16]", "--epochs", "6", "--set", "lr=3e-3", "--set", "batch_size=16")
AUDIT = ("--attack", "fgsm", "--samples", "12", "--checked", "4", "--mapped", "4", "--gallery", "3")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.slow
@pytest.mark.parametrize("splits", [("Train", "val"), ("training", "TEST"), ("train",), ("",)])
def test_photos_are_trained_on_audited_and_hardened(splits: tuple[str, ...]) -> None:
    root = photos.mixed_folder(Path("my photos"), 32, splits, most=40)
    trained = done("train", "--data", "./my photos", *TRAIN, "--validation", "0", "--out", "m", "--json")
    about = json.loads(trained.out)
    assert about["test_accuracy"]["value"] > 0.7  # a third by chance
    assert "sizes become 3 x" in said(trained.err)
    audited = json.loads(done("audit", "m", "--data", "./my photos", *AUDIT, "--out", "r", "--json").out)
    assert audited["data"]["classes"] == list(photos.CLASSES)
    assert audited["data"]["samples"] == 12
    assert any("become 3 x" in text for text in audited["data"]["notes"])
    assert "resized until they cover it" in Path(audited["report"]).read_text(encoding="utf-8")
    hardened = done(
        "harden", "m", "--data", "./my photos", "--defense", "input_gradient:weight=1", "--epochs", "1", *AUDIT,
        "--out", "h", "--json",
    )  # fmt: skip
    assert json.loads(hardened.out)["model"]
    assert sum(p.is_file() for p in root.rglob("IMG*")) == 96


def test_the_model_says_the_shape_and_the_way(tmp_path: Path) -> None:
    photos.mixed_folder(tmp_path / "pets", 6)
    done("train", "--data", "./pets", "--size", "12x10", "--color", "gray", "--resize", "pad", *TRAIN[:4], "--out", "m")
    model = models.load("m")
    assert (model.input_shape, model.preparation) == ((1, 12, 10), {"resize": "pad"})
    plan = DataPlan(data="./pets")
    assert plan.load(like=model).fingerprint == DataPlan(
        data="./pets", size="12x10", color="gray", resize="pad"
    ).load().fingerprint  # fmt: skip
    assert "images of shape (3, " in " ".join(plan.load(like=model).notes)
    assert DataPlan(data="./pets", size="9").load(like=model).shape == (1, 9, 9)
    # As the weights file says it, to any command.
    audited = call("audit", "m", "--data", "./pets", *AUDIT, "--out", "r", "--json")
    assert audited.code == 0, audited.err
    assert "become 1 x 12 x 10: resized until they fit, with black margins" in said(audited.err)


@pytest.mark.parametrize("name", ["digits", "file.npz"])
def test_arrays_are_brought_to_what_a_model_takes(name: str) -> None:
    np.savez("file.npz", x=np.zeros((20, 8, 8), np.uint8), y=np.arange(20) % 10)
    model = models.build("mlp", (3, 20, 24), 10, hidden=[4])
    data = DataPlan(data=name).load(like=model)
    assert data.shape == (3, 20, 24)
    assert "become 3 x 20 x 24" in data.notes[-1]


def test_a_table_stays_a_table() -> None:
    np.savez("table.npz", x=np.random.default_rng(0).random((20, 5)), y=np.arange(20) % 2)
    model = models.build("mlp", (5,), 2, hidden=[4])
    assert DataPlan(data="table.npz").load(like=model).shape == (5,)


def two_by_two(root: Path, *splits: str) -> None:
    for split in splits:
        for k, title in enumerate(("a", "b")):
            (root / split / title).mkdir(parents=True)
            for i in range(6):
                Image.new("L", (6, 6), 40 + 120 * k + 5 * i).save(root / split / title / f"{i}.png")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--split", "train"), "12 of 12 samples to judge on (data/train) are among those to train on (data/train)"),
        (("--train-split", "val"), "samples to judge on (data/val) are among those to train on"),
        (("--split", "tst"), "has no split 'tst'; available: extra, train, val"),
        (("--train-split", "x"), "has no split 'x'; available: extra, train, val"),
        (("--size", "big"), "size must be a positive number, HEIGHTxWIDTH"),
        (("--size", "0"), "size must be a positive number, HEIGHTxWIDTH"),
    ],
)
def test_splits_and_sizes_that_do_not_fit_are_refused(flags: tuple[str, ...], words: str) -> None:
    two_by_two(Path("data"), "train", "val", "extra")
    assert words in said(refused(2, "train", "--data", "./data", *TRAIN, *flags, "--out", "m"))
    assert not Path("m").exists()


def test_splits_are_named_where_two_are_needed() -> None:
    two_by_two(Path("data"), "monday", "tuesday")
    message = said(refused(2, "train", "--data", "./data", *TRAIN, "--out", "m"))
    assert "all hold 'a', 'b': if they are splits, name them (--train-split monday --split tuesday)" in message
    done("train", "--data", "./data", "--train-split", "monday", "--split", "tuesday", *TRAIN, "--out", "m")
    found = json.loads(done("audit", "m", "--data", "./data", "--split", "tuesday", *AUDIT, "--out", "r", "--json").out)
    assert (found["data"]["split"], found["data"]["samples"]) == ("tuesday", 12)


def test_a_configuration_file_says_the_data_too() -> None:
    two_by_two(Path("data"), "train", "val")
    Path("train.toml").write_text("data = './data'\nsize = 5\nmodel = 'mlp'\n[settings]\nepochs = 1\n")
    done("train", "train.toml", "--out", "m")
    assert models.load("m").input_shape == (1, 5, 5)
    Path("audit.toml").write_text("data = './data'\nsplit = 'train'\nsamples = 10\nchecked = 4\nattacks = ['fgsm']\n")
    found = json.loads(done("audit", "m", "--config", "audit.toml", "--gallery", "0", "--out", "r", "--json").out)
    assert (found["data"]["split"], found["data"]["samples"]) == ("train", 10)
    # The file of a run may be given again, with the data.
    again = done("audit", "m", "--config", "r/config.toml", "--data", "./data", "--split", "train", "--out", "r")
    assert "r" in again.out


def test_several_models_of_one_shape(tmp_path: Path) -> None:
    two_by_two(Path("data"), "train", "val")
    for name, size in (("a", 4), ("b", 4), ("c", 5)):
        done("train", "--data", "./data", "--size", str(size), *TRAIN[:4], "--set", "batch_size=4", "--out", name)
    torch.manual_seed(0)
    done("audit", "a", "b", "--data", "./data", *AUDIT, "--out", "r")
    message = said(refused(2, "audit", "a", "c", "--data", "./data", *AUDIT, "--out", "s"))
    assert "1, 5, 5)" in message
    assert "1, 4, 4)" in message
