"""What bad data and bad models get: a message that names the thing and the way out, and an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli.commands import AUDIT, TRAIN, call, refused

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, after, classes=10, inputs=64):
        super().__init__()
        self.layer, self.after = nn.Linear(inputs, classes), after
    def forward(self, x):
        return self.after(self.layer(x.flatten(1)))

def probabilities(): return Net(lambda z: z.softmax(1))
def nan(): return Net(lambda z: z * float("nan"))
def infinite(): return Net(lambda z: z + float("inf"))
def five(): return Net(lambda z: z, classes=5)
def rows(): return nn.Conv2d(1, 10, 3)
def wide(): return Net(lambda z: z, inputs=100)
def pairs(): return Net(lambda z: (z, z))
def broken(): raise KeyError("width")
def good(): return Net(lambda z: z)
"""


@pytest.fixture
def nets(tmp_path: Path) -> str:
    """A module of models in the current folder; every test imports its own."""
    name = f"nets_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODELS)
    return name


def _tried(code: int, model: str | Path, *options: str | Path) -> list[str]:
    """The messages of an audit and of a training with the same bad input."""
    found = [
        refused(code, "audit", model, *AUDIT, "--out", "audit", *options),
        refused(code, *TRAIN, "--model", model, "--out", "train", *options),
    ]
    assert not list(Path("audit").rglob("*.parquet"))
    assert not list(Path("train").glob("*.safetensors"))
    return found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": 255.0}, [r"within [0, 1], got [", "255]", "are they pixels of 0 to 255?", "divide them by 255"]),
        ({"x": -1.0}, [r"within [0, 1], got [-1", "did you normalize them?"]),
        ({"x": float("nan")}, ["holds NaN", "remove or fill"]),
        ({"y": -1}, ["labels of bad/all must be within 0..", "-1 at"]),
        ({"classes": np.array(["a", "b"])}, ["labels of bad/all must be within 0..1 (2 classes)", "is 2 at"]),
        ({"x": np.zeros((0, 8, 8), np.float32), "y": np.zeros(0, np.int64)}, ["bad/all is empty", "at least one"]),
        ({"y": np.zeros(40, np.int64)}, ["all 40 samples of bad/all are of class '0'", "at least two classes"]),
        ({"y": np.arange(39) % 10}, ["40 samples in x but 39 labels"]),
    ],
)
def test_data_that_are_not_right(
    changes: dict[str, Any], words: list[str], arrays: dict[str, np.ndarray], trained: Path
) -> None:
    for name, value in changes.items():
        if isinstance(value, int | float):
            arrays[name] = arrays[name].copy()
            arrays[name][0] = value
        else:
            arrays[name] = value
    np.savez("bad.npz", **arrays)
    for message in _tried(2, trained, "--data", "bad.npz"):
        assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("probabilities", 2, ["returns probabilities", "not logits", "remove its last softmax"]),
        ("nan", 1, ["NaN or infinite logits for 2 of 2 inputs", "check its weights"]),
        ("infinite", 1, ["NaN or infinite logits for 2 of 2 inputs"]),
        ("five", 2, ["gives 5 logits", "10 classes"]),
        ("rows", 2, ["must return logits (N, K)", "got shape (2, 10, 6, 6)"]),
        ("wide", 2, ["cannot take", "(2x64 and 100x10)"]),
        ("pairs", 2, ["must return logits (N, K)", "got tuple (0: (2, 10), 1: (2, 10)) for 2 inputs"]),
        ("broken", 1, ["broken failed: KeyError: 'width'"]),
        ("god", 2, ["has no 'god'", "near names: good", "module:callable"]),
    ],
)
def test_models_that_are_not_classifiers(model: str, code: int, words: list[str], nets: str) -> None:
    for message in _tried(code, f"{nets}:{model}"):
        assert all(word in message for word in words), message


def test_a_model_of_other_classes_or_shape_than_the_data(trained: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez("five.npz", **{**arrays, "y": arrays["y"] % 5})
    for message in _tried(2, trained, "--data", "five.npz"):
        assert "has 10 classes, five has 5" in message
    for message in _tried(2, trained, "--size", "16"):
        assert "1, 8, 8)" in message
        assert "1, 16, 16)" in message


def _image_folder(root: Path) -> Path:
    from PIL import Image

    for split in ("train", "test"):
        for title in ("cat", "dog"):
            (root / split / title).mkdir(parents=True)
            for i in range(3):
                noise = torch.randint(256, (8, 8), generator=torch.Generator().manual_seed(i), dtype=torch.uint8)
                Image.fromarray(noise.numpy()).save(root / split / title / f"{i}.png")
    return root


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    root = _image_folder(tmp_path / "pets")
    for split in ("test", "train"):
        bad = root / split / "dog" / "1.png"
        whole = bad.read_bytes()
        bad.write_bytes(whole[: len(whole) // 2])
        message = refused(1, "train", "--data", root, "--epochs", "1")
        assert "1.png is not a readable image (truncated?)" in message
        assert str(bad) in message
        assert "replace or remove it" in message
        bad.write_bytes(whole)
    assert "holds no images" not in call("train", "--data", root, "--epochs", "1", "--validation", "0.2").err


def test_a_truncated_parquet_file_is_named(tmp_path: Path, trained: Path) -> None:
    import pandas as pd

    bad = tmp_path / "pets.parquet"
    pd.DataFrame({"image": [b"pixels"] * 40, "label": [i % 10 for i in range(40)]}).to_parquet(bad)
    bad.write_bytes(bad.read_bytes()[:-200])
    for message in _tried(1, trained, "--data", bad):
        assert f"{bad} is not a readable Parquet file (truncated?)" in message
        assert "copy it again" in message


def test_weights_of_another_architecture_name_the_first_differing_keys(trained: Path) -> None:
    message = refused(2, "audit", "mlp:hidden=[20]", "--weights", trained / "model.safetensors", *AUDIT)
    assert "weights of another architecture than mlp" in message
    assert "keys differ: 0.bias: model has none, file (32,); 0.weight: model has none, file (32, 1, 3, 3)" in message


@pytest.mark.parametrize("form", ["alone", "weights"])
def test_a_pickle_is_refused_unread(form: str, nets: str) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (Path("run"),)

    torch.save(Trap(), "model.pt")
    given = ("model.pt",) if form == "alone" else (f"{nets}:good", "--weights", "model.pt")
    message = refused(2, "audit", *given, *AUDIT)
    assert "model.pt holds other objects" in message
    assert "torch.save(torch.load(path, weights_only=False)['state_dict'], 'weights.pt')" in message
    assert not Path("run").exists()


def test_a_truncated_model_file_is_named(trained: Path) -> None:
    Path("half.safetensors").write_bytes((trained / "model.safetensors").read_bytes()[:5000])
    assert "half.safetensors is not a readable safetensors file (truncated?)" in refused(1, "audit", "half.safetensors")


@pytest.mark.parametrize("spec", ["lenet", "mlp:hidden=[20]", "mine=digits_cnn"])
def test_random_weights_are_not_audited(spec: str) -> None:
    message = refused(2, "audit", spec, *AUDIT)
    assert "is an architecture, and its weights would be random: train it first (steadygrad train --model" in message
    assert "--weights" in message


def test_a_run_folder_whose_training_has_not_finished_says_so(trained: Path) -> None:
    Path("run").mkdir()
    Path("run", "checkpoint.safetensors").write_bytes((trained / "checkpoint.safetensors").read_bytes())
    assert "the folder run holds no models/*.safetensors: has its training finished?" in refused(2, "audit", "run")


def test_training_that_diverges_says_what_to_change() -> None:
    message = refused(1, *TRAIN, "--set", "lr=1e30", "--set", "optimizer=sgd", "--out", "run")
    assert "the loss is no longer finite in epoch 1" in message
    assert "lower lr=1e+30" in message
