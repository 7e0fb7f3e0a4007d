"""Image classifiers of transformers, played by a stand-in: nothing is downloaded here.

The stand-in has the functions, arguments and attributes of transformers 5 (`AutoModelForImageClassification`,
`AutoConfig`, `AutoImageProcessor`, `config.id2label`, `processor.size`, ...), and its processor is written with
Pillow and NumPy alone.
"""

from __future__ import annotations

import logging
import sys
import types
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from steadygrad.cli.named_models import _load
from steadygrad.data import from_arrays
from steadygrad.data.data_plan import DataPlan
from steadygrad.errors import Failure, UsageError
from steadygrad.models import hugging_face, load
from steadygrad.run_folders import run_folder

NAMES = {0: "eel", 1: "cat", 2: "dog"}
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class Config:
    def __init__(self, id2label):
        self.id2label = id2label

    @property
    def num_labels(self):
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count):
        self.id2label = {place: f"LABEL_{place}" for place in range(count)}


class Net(nn.Module):
    """Returns an object with `logits`, as those of transformers do."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.classifier = nn.Linear(3, config.num_labels)

    def forward(self, pixel_values):
        return types.SimpleNamespace(loss=None, logits=self.classifier(pixel_values.mean((2, 3))))


class Processor:
    """Resizes by `size` to a height and width, or the shortest edge, cuts out `crop_size`, and normalizes."""

    def __init__(self, size, crop_size=None, resample=3, do_normalize=True, order=(0, 1, 2), **more):
        self.size, self.crop_size, self.resample, self.do_normalize = size, crop_size, resample, do_normalize
        self.do_resize, self.do_center_crop, self.do_rescale = size is not None, crop_size is not None, True
        self.image_mean, self.image_std, self.order = list(MEAN), list(STD), list(order)
        for name, value in more.items():
            setattr(self, name, value)

    def __call__(self, images, return_tensors):
        assert return_tensors == "pt"
        image, size = images.convert("RGB"), self.size or {}
        if "height" in size:
            image = image.resize((size["width"], size["height"]), self.resample)
        elif size:
            short = min(image.size)
            image = image.resize([side * size["shortest_edge"] // short for side in image.size], self.resample)
        values = np.asarray(image) / 255
        if self.crop_size:
            high, wide = self.crop_size["height"], self.crop_size["width"]
            top, left = (values.shape[0] - high) // 2, (values.shape[1] - wide) // 2
            values = values[top : top + high, left : left + wide]
        values = (values - MEAN) / STD if self.do_normalize else values
        return {"pixel_values": torch.tensor(values[..., self.order], dtype=torch.float32).permute(2, 0, 1)[None]}


def transformers_like(asked, processor, labels, missing):
    def config(place, **options):
        asked.append((place, options))
        return Config(dict(labels))

    def model(place, output_loading_info, weights_only, **options):
        assert output_loading_info
        assert weights_only
        net = Net(config(place, **options)).half()
        nn.init.constant_(net.classifier.weight, 0.5)
        return net, {"missing_keys": missing, "unexpected_keys": set()}

    def prepared(place, **options):
        asked.append((place, options))
        if isinstance(processor, Exception):
            raise processor
        return processor

    return types.SimpleNamespace(
        AutoConfig=types.SimpleNamespace(from_pretrained=config),
        AutoModelForImageClassification=types.SimpleNamespace(from_pretrained=model, from_config=Net),
        AutoImageProcessor=types.SimpleNamespace(from_pretrained=prepared),
    )


SQUARE = {"height": 8, "width": 8}


@pytest.fixture
def library(monkeypatch):
    """Puts the stand-in in place; gives the calls that it gets."""

    def put(processor=None, labels=NAMES, missing=(), away=None):
        asked = []
        fake = transformers_like(asked, processor or Processor(SQUARE), labels, missing)
        monkeypatch.setitem(sys.modules, "transformers", fake)
        monkeypatch.setattr(hugging_face, "unreachable", lambda: away)
        return asked

    return put


def test_a_model_comes_with_its_classes_and_normalization(library):
    asked = library()
    model = load("hf:owner/name@v2")
    assert model.classes == ("eel", "cat", "dog")
    assert (model.input_shape, model.architecture) == ((3, 8, 8), {"name": "hf:owner/name@v2"})
    assert model.settings["mean"] == pytest.approx(MEAN.tolist(), abs=1e-6)
    assert model.settings["std"] == pytest.approx(STD.tolist(), abs=1e-6)
    assert model.module.classifier.weight.dtype == torch.float32
    wanted = {"revision": "v2", "trust_remote_code": False, "local_files_only": False}
    assert asked == [("owner/name", wanted)] * 2


@pytest.mark.parametrize(
    ("processor", "way"),
    [
        (Processor(SQUARE), {"resize": "squash", "interpolation": "bicubic"}),
        (Processor(SQUARE, resample=2), {"resize": "squash"}),
        (Processor(SQUARE, resample=1), {"resize": "squash", "interpolation": "lanczos"}),
        (Processor({"shortest_edge": 10}, SQUARE), {"kept": 0.8, "interpolation": "bicubic"}),
        (Processor({"shortest_edge": 8}, SQUARE, resample=2), None),
        (Processor({"height": 10, "width": 10}, SQUARE), {"resize": "squash", "kept": 0.8, "interpolation": "bicubic"}),
        (Processor(SQUARE, do_normalize=False), {"resize": "squash", "interpolation": "bicubic"}),
        (Processor({"height": 6, "width": 9}), {"resize": "squash", "interpolation": "bicubic"}),
    ],
)  # fmt: skip
def test_photos_become_what_its_processor_makes_of_them(library, processor, way, tmp_path, caplog):
    library(processor)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 48, 3), dtype=np.uint8))
    for title in NAMES.values():
        (tmp_path / "photos" / "test" / title).mkdir(parents=True)
        picture.save(tmp_path / "photos" / "test" / title / "0.png")
    plan = DataPlan(data=str(tmp_path / "photos"))
    with caplog.at_level(logging.WARNING):
        model = load("hf:owner/name", data=plan.opened())
        assert "another way" not in caplog.text
    assert model.preparation == way
    seen = processor(images=picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        wanted = model.module(seen).logits
        torch.testing.assert_close(model(plan.load(like=model).batch(slice(0, 1))[0]), wanted, atol=1e-4, rtol=1e-4)


def test_another_way_of_resizing_is_told(library, caplog):
    library(Processor({"shortest_edge": 8}))  # which leaves the proportions
    assert load("hf:owner/name").input_shape == (3, 8, 8)
    assert "its own image processor does in another way" in caplog.text


def test_one_that_leaves_the_size_takes_that_of_the_data(library):
    library(Processor(None))
    assert load("hf:owner/name").input_shape is None
    assert load("hf:owner/name", input_shape=(3, 5, 7)).input_shape == (3, 5, 7)


def test_a_folder_needs_no_network(library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for spec in ("hf:./mine", "hf:mine", f"hf:{tmp_path / 'mine'}"):
        asked = library(away="no network")
        load(spec)
        assert asked[0][1] == {"trust_remote_code": False, "local_files_only": True}
        assert (tmp_path / asked[0][0]).samefile(tmp_path / "mine")


def test_labels_without_names_are_a_number(library):
    library(labels={place: f"LABEL_{place}" for place in range(12)})
    assert load("hf:owner/name").classes == tuple(map(str, range(12)))
    library(labels={str(place): f"n{place}" for place in range(12)})
    assert load("hf:owner/name").classes == tuple(f"n{place}" for place in range(12))


def test_it_takes_weights_of_ones_own(library, tmp_path):
    library()
    state = {"classifier.weight": torch.ones(2, 3), "classifier.bias": torch.zeros(2)}
    save_file(state, tmp_path / "a.safetensors")
    model = load("hf:owner/name", weights=tmp_path / "a.safetensors", classes=["a", "b"])
    assert torch.equal(model.module.classifier.weight, state["classifier.weight"])
    assert model.classes == ("a", "b")
    # What the library saved says its classes itself, also where the data have fewer.
    load("hf:owner/name").save(tmp_path / "b.safetensors")
    again = load("hf:owner/name", weights=tmp_path / "b.safetensors", classes=3)
    assert (again.classes, again.input_shape) == (("eel", "cat", "dog"), (3, 8, 8))


def test_a_run_folder_brings_it_back(library, tmp_path):
    library()
    config = {"model code": "of another process", "classifier": {"architecture": {"name": "hf:owner/name"}}}
    with run_folder(tmp_path, config):
        load("hf:owner/name").save(tmp_path / "model.safetensors")
    data = from_arrays(torch.rand(6, 3, 8, 8), [0, 1, 2] * 2, list(NAMES.values()))
    assert _load(str(tmp_path), None, partial(load, data=data), (), False).classes == ("eel", "cat", "dog")


def test_one_logit_is_that_of_two_classes(library, tmp_path):
    for label in ("hot dog", "LABEL_0"):
        library(labels={0: label})
        with pytest.raises(UsageError, match=r"one logit: if it is of two classes, say so: binary=True \(--binary\)"):
            load("hf:owner/name")
    model = load("hf:owner/name", binary=True, classes=["no", "yes"])
    assert (model.classes, model(torch.rand(2, 3, 8, 8)).shape) == (("no", "yes"), (2, 2))
    model.save(tmp_path / "b.safetensors")
    library(labels=NAMES)
    again = load("hf:owner/name", weights=tmp_path / "b.safetensors")
    assert (again.binary, again.classes) == (True, ("no", "yes"))


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("hf:./none", UsageError, "there is no folder none"),
        ("hf:./none@a.safetensors", UsageError, "weights of one's own are given by --weights"),
        ("hf:a b", UsageError, "is hf:owner/name, hf:owner/name@revision or hf:./folder, got hf:a b"),
        ("hf:", UsageError, "got hf:"),
    ],
)
def test_what_is_no_name_or_folder_is_refused(library, spec, kind, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    library()
    with pytest.raises(kind, match=message):
        load(spec)


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ({"missing": {"classifier.weight"}}, Failure, "no weights for classifier.weight, which would be random"),
        ({"processor": OSError("no preprocessor_config.json")}, Failure, "OSError: no preprocessor_config.json"),
        ({"processor": OSError("x"), "away": "it is not reached"}, Failure, "it is not reached, and it is not on this"),
        ({"processor": Processor(SQUARE, order=(2, 1, 0))}, UsageError, "another order of colors: take the model as"),
        ({"processor": lambda images, return_tensors: {}}, Failure, "takes no photo: KeyError"),
        ({"labels": {1: "a", 2: "b"}}, Failure, "do not count from 0"),
    ],
)  # fmt: skip
def test_what_it_cannot_be_right_with_is_refused(library, how, kind, message):
    library(**how)
    with pytest.raises(kind, match=message):
        load("hf:owner/name")


def test_a_missing_library_gives_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(Failure, match="transformers is not installed: pip install transformers"):
        load("hf:owner/name")
