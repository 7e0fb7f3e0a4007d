"""Data as programs hold them: arrays, lists, torch data sets and loaders, Hugging Face, pandas."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

import steadygrad as sg
from steadygrad import data
from steadygrad.data import Dataset, dataset_of, lazy, python_data
from steadygrad.data.lazy import LazyImages
from steadygrad.errors import UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)  # (N, H, W, C)
LABELS = np.arange(12) % 3
WANTED = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255
Y = torch.from_numpy(LABELS)


class Photos(TorchDataset):
    """As torchvision writes them."""

    classes = ("cat", "dog", "eel")

    def __init__(self, form: Callable[[np.ndarray], Any], label: Callable[[int], Any] = int) -> None:
        self.form, self.label = form, label

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, i: int) -> Any:
        if i >= len(PIXELS):
            raise IndexError(i)
        return self.form(PIXELS[i]), self.label(int(LABELS[i]))


class Named(Photos):
    """As transformers want them."""

    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        return {"pixel_values": x, "labels": y}


def to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def hugging_face(kind: str) -> Any:
    import datasets

    names = datasets.ClassLabel(names=["cat", "dog", "eel"])
    if kind == "image":
        features = datasets.Features({"img": datasets.Image(), "label": names})
        images = [Image.fromarray(image) for image in PIXELS]
        return datasets.Dataset.from_dict({"img": images, "label": LABELS.tolist()}, features=features)
    features = datasets.Features({"x": datasets.Array3D((6, 5, 3), "uint8"), "y": names, "z": datasets.Value("string")})
    rows = {"x": list(PIXELS), "y": LABELS.tolist(), "z": ["a"] * 12}
    table = datasets.Dataset.from_dict(rows, features=features)
    if kind == "transform":
        change = lambda rows: {"pixel_values": [to_tensor(np.array(x, np.uint8)) for x in rows["x"]], "y": rows["y"]}  # noqa: E731
        return table.rename_column("z", "image_id").with_transform(change)
    return table.with_format(kind)


def made_in_inference_mode() -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        return WANTED.clone(), Y.clone()


BROUGHT: dict[str, Callable[[], Any]] = {
    "tensors": lambda: (WANTED, Y),
    "a list of both": lambda: [WANTED, Y],
    "uint8 tensors": lambda: (torch.from_numpy(PIXELS), Y),
    "arrays, channels last": lambda: (PIXELS, LABELS),
    "arrays, channels first": lambda: (PIXELS.transpose(0, 3, 1, 2), LABELS),
    "arrays of floats": lambda: (PIXELS / 255, LABELS),
    "arrays of another byte order": lambda: ((PIXELS / 255).astype(">f4"), LABELS.astype(">i4")),
    "arrays of long floats": lambda: ((PIXELS / 255).astype(np.longdouble), LABELS),
    "half precision": lambda: (WANTED.double(), Y.to(torch.int16)),
    "a list of tensors": lambda: (list(WANTED), Y.tolist()),
    "a list of arrays": lambda: (list(PIXELS), LABELS.tolist()),
    "a list of images": lambda: ([Image.fromarray(image) for image in PIXELS], LABELS),
    "lists of numbers": lambda: (WANTED.tolist(), LABELS.tolist()),
    "a column of pandas": lambda: (PIXELS, pd.Series(LABELS)),
    "tensors with gradients": lambda: (WANTED.clone().requires_grad_(), Y),
    "made in inference mode": made_in_inference_mode,
    "channels last in memory": lambda: (WANTED.to(memory_format=torch.channels_last), Y),
    "TensorDataset": lambda: TensorDataset(WANTED, Y),
    "torch Dataset of tensors": lambda: Photos(to_tensor),
    "torch Dataset of images": lambda: Photos(Image.fromarray),
    "torch Dataset of arrays": lambda: Photos(lambda x: x),
    "labels as tensors": lambda: Photos(to_tensor, torch.tensor),
    "labels of NumPy": lambda: Photos(to_tensor, np.int64),
    "samples as mappings": lambda: Named(to_tensor),
    "Subset": lambda: Subset(Photos(to_tensor), range(12)),
    "a list of samples": lambda: list(zip(WANTED, LABELS.tolist())),
    "DataLoader": lambda: DataLoader(TensorDataset(WANTED, Y), batch_size=5),
    "DataLoader of mappings": lambda: DataLoader(Named(to_tensor), batch_size=12),
    "DataLoader without batches": lambda: DataLoader(Photos(to_tensor), batch_size=None),
    "DataLoader of our own": lambda: DataLoader(dataset_of((WANTED, Y)), batch_size=4),
    "Hugging Face, images": lambda: hugging_face("image"),
    "Hugging Face, arrays": lambda: hugging_face("numpy"),
    "Hugging Face, torch": lambda: hugging_face("torch"),
    "Hugging Face, a transform": lambda: hugging_face("transform"),
}


@pytest.mark.parametrize("what", BROUGHT)
def test_what_programs_hold_is_taken_as_it_is(what: str) -> None:
    python, numpy, state = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    found = dataset_of(BROUGHT[what]())
    assert (found.shape, len(found)) == ((3, 6, 5), 12)
    assert (found.tensors()[0] - WANTED).abs().max() < 1e-6
    assert torch.equal(found.labels, Y)
    assert found.ids == tuple(f"data/{found.split}/{i:05d}" for i in range(12))
    named = "Photos" in type(BROUGHT[what]()).__name__ or "Hugging" in what or "images" in what.split(" of ")[-1:]
    assert found.classes in (("cat", "dog", "eel"), ("0", "1", "2"))
    assert not named or what == "a list of images" or found.classes == ("cat", "dog", "eel")
    assert dataset_of(BROUGHT[what]()).fingerprint == found.fingerprint
    # Gradients may flow from it, and the caller's generators are as they were.
    found.tensors()[0].requires_grad_().sum().backward()
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], numpy)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), state)


KINDS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_labels_of_any_integer_type(kind: str, as_tensor: bool) -> None:
    labels = torch.from_numpy(LABELS.astype(kind)) if as_tensor else LABELS.astype(kind)
    assert torch.equal(dataset_of((PIXELS, labels)).labels, Y)


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        return iter(zip(WANTED, Y))


def noisy(image: np.ndarray) -> torch.Tensor:
    return (to_tensor(image) + 0.1 * torch.rand(3, 6, 5)).clamp(0, 1)


def splits() -> Any:
    import datasets

    return datasets.DatasetDict({"train": hugging_face("image"), "test": hugging_face("image")})


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a name": (lambda: "digits", r"data is 'digits': load it first, sg\.data\.load\('digits', 'test'\)"),
    "nothing": (lambda: None, r"data must be a sg\.data\.Dataset, .* got builtins\.NoneType"),
    "a number": (lambda: 3, r"got builtins\.int"),
    "inputs alone": (lambda: WANTED, "got torch.Tensor: the labels are missing"),
    "an array alone": (lambda: PIXELS, "ndarray: the labels are missing"),
    "a mapping": (lambda: {"x": WANTED, "y": Y}, r"got builtins\.dict"),
    "an iterator": (lambda: zip(WANTED, Y), r"got builtins\.zip"),
    "three": (lambda: (WANTED, Y, Y), "sample 0 of data must be .x, y., got Tensor"),
    "a table": (lambda: pd.DataFrame({"a": [1], "label": [0]}), r"DataFrame: give \(x, y\), such as \(table\.drop"),
    "an iterable": (Endless, "Endless, which has no order and no length: give a map-style Dataset"),
    "a loader of an iterable": (lambda: DataLoader(Endless(), batch_size=2), "a DataLoader over an IterableDataset"),
    "a loader that shuffles": (
        lambda: DataLoader(Photos(to_tensor), batch_size=4, shuffle=True),
        "gives its samples in another order each time .RandomSampler.*give loader.dataset, or .* shuffle=False",
    ),
    "a weighted loader": (
        lambda: DataLoader(Photos(to_tensor), sampler=torch.utils.data.WeightedRandomSampler([1.0] * 12, 12)),
        "WeightedRandomSampler",
    ),
    "random transforms": (lambda: Photos(noisy), "gives other samples each time .* leave random transforms"),
    "a loader of random transforms": (lambda: DataLoader(Photos(noisy)), "gives other samples each time"),
    "several splits": (splits, r"has the splits train, test: choose one, such as data\['train'\]"),
    "an empty data set": (lambda: TensorDataset(WANTED[:0], Y[:0]), "data is empty"),
    "an empty pair": (lambda: (WANTED[:0], Y[:0]), "data/all is empty"),
    "labels that are text": (lambda: (PIXELS, ["cat", "dog", "eel"] * 4), r"got texts such as 'cat': .*np\.unique"),
    "labels of floats": (lambda: (PIXELS, LABELS.astype(float)), r"got torch\.float64 .*: cast them to int"),
    "labels of bool": (lambda: (PIXELS, LABELS > 0), "got torch.bool .* cast them to int"),
    "one-hot labels": (lambda: (PIXELS, np.eye(3, dtype=int)[LABELS]), r"of shape \(12, 3\): argmax\(1\)"),
    "labels in a column": (lambda: (PIXELS, LABELS[:, None]), r"of shape \(12, 1\): y\[:, 0\]"),
    "no labels": (lambda: (PIXELS, None), "y must be a tensor of real numbers"),
    "labels too large": (lambda: (PIXELS, LABELS.astype(np.uint64) + np.uint64(2**63)), "larger than a 64-bit integer"),
    "labels below 0": (lambda: (PIXELS, LABELS - 1), "-1 marks unlabeled"),
    "labels of samples": (lambda: Photos(to_tensor, float), "label of sample 0 of data must be one whole"),
    "one-hot samples": (lambda: Photos(to_tensor, lambda i: torch.eye(3)[i]), r"Tensor of shape \(3,\): .* argmax"),
    "one class": (lambda: (PIXELS, LABELS * 0), "all 12 samples of data/all are of class '0'"),
    "fewer labels": (lambda: (PIXELS, LABELS[:5]), "12 samples in x but 5 labels in y"),
    "several shapes": (lambda: ([WANTED[0], WANTED[1, :, :4]], [0, 1]), r"several shapes, \(3, 4, 5\) and \(3, 6, 5\)"),
    "several shapes of images": (
        lambda: ([Image.new("L", (4, 5)), Image.new("L", (5, 4))], [0, 1]),
        "several shapes",
    ),
    "other keys": (lambda: [{"photo": 1, "kind": 2}] * 3, "sample 0 of data has the keys 'photo', 'kind': an input"),
    "pixels up to 255": (lambda: (PIXELS.astype(np.float32), LABELS), "are they pixels of 0 to 255"),
    "pixels of 0 to 255 as int64": (lambda: (PIXELS.astype(int), LABELS), r"of 0 to 255 are x\.astype\('uint8'\)"),
    "16 bits": (lambda: (PIXELS.astype(np.uint16) * 200, LABELS), "make them floats, and scale them"),
    "0 and 1 as uint8": (lambda: ((PIXELS > 127).astype(np.uint8), LABELS), "holds 0 and 1 only: give 255 [*] x"),
    "normalized": (lambda: ((WANTED - 0.5) / 0.2, Y), "did you normalize"),
    "one pixel outside": (lambda: (WANTED + 1e-3 * (WANTED.max() == WANTED), Y), "must lie within"),
    "NaN": (lambda: (WANTED / (WANTED > 0), Y), "holds NaN"),
    "complex": (lambda: (WANTED.to(torch.complex64), Y), "must hold real numbers"),
    "sparse": (lambda: (WANTED.to_sparse(), Y), r"dense tensor.*x\.to_dense"),
    "objects": (lambda: (np.array([{}] * 12), LABELS), "tensor of real numbers .*got a NumPy array of object"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_told_is_refused_with_the_way_out(what: str) -> None:
    make, words = REFUSED[what]
    with pytest.raises(UsageError, match=words):
        dataset_of(make())


def test_what_rounding_puts_outside_is_clipped() -> None:
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    black_and_white = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    back = (black_and_white - mean) / std * std + mean
    for x in (back, black_and_white - 3e-8, black_and_white + 3e-8 * black_and_white.sign()):
        found = Dataset(x.float(), torch.tensor([0, 1]), ("a", "b"), ("p", "q"))
        assert found.images.min() >= 0
        assert found.images.max() <= 1
        assert (found.images - black_and_white).abs().max() < 1e-6


@pytest.mark.parametrize("small", [False, True])
def test_large_data_sets_are_read_when_they_are_asked_for(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = dataset_of(Photos(to_tensor))
    if small:
        monkeypatch.setattr(lazy, "MOST_BYTES", 500)
    found = dataset_of(Photos(to_tensor))
    assert isinstance(found.images, LazyImages) == small
    assert found.fingerprint == memory.fingerprint
    assert (found.classes, found.ids, found.labels.tolist()) == (memory.classes, memory.ids, memory.labels.tolist())


@pytest.mark.parametrize("kind", ["array", "loader"])
def test_tables_and_loaders_of_large_data_are_not_held(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = hugging_face("numpy") if kind == "array" else DataLoader(Photos(to_tensor), batch_size=5)
    memory = dataset_of(given)
    monkeypatch.setattr(lazy, "MOST_BYTES", 100)
    found = dataset_of(given)
    assert isinstance(found.images, LazyImages)
    assert found.fingerprint == memory.fingerprint
    assert (found.classes, found.ids, found.labels.tolist()) == (memory.classes, memory.ids, memory.labels.tolist())
    if kind == "array":
        read: list[int] = []
        column = type(found.images.read.x)  # type: ignore[attr-defined]
        whole = column.__getitem__
        monkeypatch.setattr(column, "__getitem__", lambda self, rows: (read.extend(rows), whole(self, rows))[1])
        found.batch([7, 2])
        assert read == [7, 2]


class Targeted(Photos):
    """As torchvision writes them, with a count of what is read."""

    def __init__(self, targets: Any) -> None:
        super().__init__(to_tensor)
        self.targets, self.read = targets, 0

    def __getitem__(self, i: int) -> Any:
        self.read += 1
        return super().__getitem__(i)

    __getitem__.__module__ = "torchvision.datasets.folder"


class Noisy(Targeted):
    """A class of one's own, which gives another label here and there."""

    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        return x, (y + (i == 8)) % 3


def test_a_class_of_ones_own_is_read_whatever_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "MOST_BYTES", WANTED[:2].nbytes)
    monkeypatch.setattr(python_data, "_LOOKED_AT", 1)
    monkeypatch.setattr(python_data, "_SEEN_TWICE", 2)
    found = dataset_of(Noisy(LABELS.tolist()))
    assert found.labels.tolist() == [(label + (i == 8)) % 3 for i, label in enumerate(LABELS.tolist())]


@pytest.mark.parametrize("part", [False, True])
def test_labels_that_large_data_say_are_not_read_sample_by_sample(part: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "MOST_BYTES", WANTED[:2].nbytes)
    monkeypatch.setattr(python_data, "_LOOKED_AT", 2)
    monkeypatch.setattr(python_data, "_SEEN_TWICE", 2)
    wrong = [(label + (i == 9)) % 3 for i, label in enumerate(LABELS.tolist())]
    for targets, count in ((LABELS.tolist(), 7), (torch.tensor(LABELS), 7), (["a"] * 12, 14), (wrong, 16)):
        photos = Targeted(targets)
        found = dataset_of(Subset(photos, range(11, -1, -1)) if part else photos)
        assert found.labels.tolist() == (LABELS[::-1] if part else LABELS).tolist()
        assert found.classes == Photos.classes
        if not part:
            assert photos.read == count


def test_our_data_are_a_torch_data_set() -> None:
    found = data.load("digits", "test").take(20)
    x, y = found.tensors()
    assert torch.equal(found[3][0], x[3])
    assert found[-1][1] == int(y[-1])
    assert found[np.int64(2)][1] == int(y[2])
    assert found[2:5].ids == found.ids[2:5]
    assert [label for _, label in found] == y.tolist()
    with pytest.raises(IndexError, match="has no sample 20: give a place from 0 to 19"):
        found[20]
    with pytest.raises(UsageError, match="has no sample 'a'"):
        found["a"]
    for workers in (0, 2):
        batches = list(DataLoader(found, batch_size=6, num_workers=workers))
        assert torch.equal(torch.cat([b[0] for b in batches]), x)
        assert torch.equal(torch.cat([b[1] for b in batches]), y)


@pytest.mark.parametrize("source", ["folder", "npz", "parquet", "samples"])
def test_lazy_data_go_to_other_processes(source: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if source == "folder":
        for i, image in enumerate(PIXELS):
            (tmp_path / "pets" / "abc"[LABELS[i]]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / "pets" / "abc"[LABELS[i]] / f"{i}.png")
    elif source == "npz":
        np.savez(tmp_path / "pets.npz", x=PIXELS, y=LABELS)
    elif source == "parquet":
        hugging_face("image").to_parquet(tmp_path / "pets.parquet")
    monkeypatch.setattr(lazy, "MOST_BYTES", 0)
    name = {"folder": "pets", "npz": "pets.npz", "parquet": "pets.parquet"}.get(source, "")
    found = data.load(tmp_path / name, "all") if name else dataset_of(Photos(to_tensor))
    assert isinstance(found.images, LazyImages)
    again = pickle.loads(pickle.dumps(found))
    assert again.fingerprint == found.fingerprint
    assert torch.equal(again[3][0], found[3][0])


def test_every_function_takes_them() -> None:
    x, y = data.load("digits", "test").draw(30).tensors()
    model = sg.models.build("mlp", (1, 8, 8), 10, hidden=[8])
    threat, attack = sg.linf(0.1), sg.attacks.FGSM()
    ways = [(x, y), (x.numpy(), y.tolist()), TensorDataset(x, y), DataLoader(TensorDataset(x, y), batch_size=7)]
    shares = [sg.robust_accuracy(sg.evaluate(model, way, attack, threat)).value for way in ways]
    assert len(set(shares)) == 1
    audited = sg.audit(model, (x, y), threat, attacks=[attack], checked=4, mapped=4, gallery=0)
    assert audited.summary["data"]["samples"] == 30
    sg.validity(model, TensorDataset(x, y), attack, threat)
    train = data.load("digits").take(40)
    settings = sg.FitSettings(epochs=1)
    pairs = TensorDataset(*train.tensors())
    assert sg.fit(model, sg.defenses.Plain(), pairs, (x, y), settings=settings).epochs_done == 1
    hardened = sg.harden(
        model, pairs, sg.defenses.Plain(), threat, test=(x, y), settings=settings,
        attacks=[attack], checked=4, mapped=4, gallery=0,
    )  # fmt: skip
    assert hardened.audit.summary["data"]["samples"] == 30


@pytest.mark.parametrize(
    ("shape", "channels", "wanted"),
    [
        ((6, 4, 8, 8), None, (4, 8, 8)),
        ((6, 8, 8, 4), None, (4, 8, 8)),
        ((6, 2, 8, 8), None, (2, 8, 8)),
        ((6, 13, 8, 8), None, (13, 8, 8)),
        ((6, 8, 8, 13), None, (13, 8, 8)),
        ((6, 4, 20, 10), None, (4, 20, 10)),
        ((6, 20, 10, 4), None, (4, 20, 10)),
        ((6, 16, 4, 4), None, (16, 4, 4)),
        ((6, 3, 8, 8), None, (3, 8, 8)),
        ((6, 8, 8, 1), None, (1, 8, 8)),
        ((6, 4, 8, 4), "first", (4, 8, 4)),
        ((6, 4, 8, 4), "last", (4, 4, 8)),
        ((6, 3, 8, 3), "last", (3, 3, 8)),
        ((6, 8, 8, 8), "last", (8, 8, 8)),
        ((6, 13, 10, 20), "first", (13, 10, 20)),
    ],
)
def test_channels_of_any_number(shape: tuple[int, ...], channels: Any, wanted: tuple[int, ...], tmp_path: Any) -> None:
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    found = data.from_arrays(x, np.arange(6) % 2, channels=channels)
    assert found.shape == wanted
    first = np.array_equal(found.images.numpy(), x)
    assert first or np.array_equal(found.images.numpy(), x.transpose(0, 3, 1, 2))
    more = {} if channels is None else {"channels": np.array(channels)}
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(6) % 2, **more)
    assert data.load(tmp_path / "a.npz", "all").images.equal(found.images)


@pytest.mark.parametrize("shape", [(6, 4, 8, 4), (6, 8, 8, 8), (6, 13, 10, 20), (6, 8, 2, 8)])
def test_channels_that_cannot_be_told_are_refused(shape: tuple[int, ...]) -> None:
    _, a, b, c = shape
    words = rf"may be {a} channels of {b} x {c} or {c} of {a} x {b}: say channels='first' or channels='last'"
    with pytest.raises(UsageError, match=words):
        data.from_arrays(np.zeros(shape), np.arange(6) % 2)


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_images_of_many_channels_are_audited_with_pictures(channels: int, tmp_path: Any) -> None:
    x = np.random.default_rng(0).random((8, channels, 8, 8), dtype=np.float32)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64 * channels, 2))
    sg.audit(
        net, (x, np.arange(8) % 2), sg.linf(0.1), attacks=[sg.attacks.FGSM()], checked=2, mapped=2, gallery=2,
        out=tmp_path / "r",
    )  # fmt: skip
    page = sg.report.write(tmp_path / "r").read_text()
    assert f"Images of {channels} channels are shown as the mean of their channels" in page
