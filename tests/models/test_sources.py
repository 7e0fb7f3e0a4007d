"""Models from libraries and from the Hub, played by stand-ins: nothing is downloaded here."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from steadygrad.errors import Failure, UsageError
from steadygrad.models import build, load, sources


def small():
    return build("mlp", (1, 4, 4), ["x", "y", "z"], seed=5, mean=0.3, hidden=(9,)).eval()


def batch(model):
    return torch.rand(2, *model.input_shape, generator=torch.Generator().manual_seed(0))


# timm and torchvision, played by modules with the same functions
TRANSFORM = {"crop_pct": 0.5, "crop_mode": "center", "interpolation": "bicubic"}
RESIZED = {"resize_size": [4], "interpolation": types.SimpleNamespace(value="bicubic")}


def timm_like():
    def create_model(name, pretrained=False, num_classes=4):
        if name not in ("resnet18", "broken"):
            raise RuntimeError(f"Unknown model ({name})")
        if name == "broken":
            raise OSError("no network")
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))
        if pretrained:
            nn.init.constant_(model[1].weight, 0.5)
        model.num_classes = num_classes
        return model

    config = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (3, 2, 2), **TRANSFORM}
    data = types.SimpleNamespace(resolve_model_data_config=lambda model: config)
    return types.SimpleNamespace(create_model=create_model, data=data, list_models=lambda: ["resnet18", "broken"])


def torchvision_like(asked):
    def get_model(name, weights, num_classes=3):
        assert weights is None
        return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))

    def get_state_dict(**options):
        asked.update(options)
        return {"1.weight": torch.full((3, 12), 0.5), "1.bias": torch.zeros(3)}

    default = types.SimpleNamespace(
        get_state_dict=get_state_dict,
        transforms=lambda: types.SimpleNamespace(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop_size=[2], **RESIZED),
        meta={"categories": ["cat", "dog", "eel"]},
    )
    models = types.SimpleNamespace(
        get_model=get_model,
        get_model_weights=lambda name: types.SimpleNamespace(DEFAULT=default),
        list_models=lambda module: ["resnet18"],
    )
    return types.SimpleNamespace(models=models)


@pytest.fixture
def libraries(monkeypatch):
    asked = {}
    monkeypatch.setitem(sys.modules, "timm", timm_like())
    monkeypatch.setitem(sys.modules, "torchvision", torchvision_like(asked))
    return asked


@pytest.mark.parametrize(("library", "classes"), [("timm", list("0123")), ("torchvision", ["cat", "dog", "eel"])])
def test_library_models_come_with_their_normalization(libraries, library, classes):
    model = load(f"{library}:resnet18")
    assert model.settings["mean"] == pytest.approx([0.1, 0.2, 0.3])
    assert model.settings["std"] == pytest.approx([0.4, 0.5, 0.6])
    assert (list(model.classes), model.input_shape) == (classes, (3, 2, 2))
    assert model.architecture == {"name": f"{library}:resnet18"}
    assert model.preparation == {"kept": 0.5, "interpolation": "bicubic"}
    assert float(model.module[1].weight.detach().mean()) == 0.5
    with pytest.raises(UsageError, match="classes, got 10"):
        load(f"{library}:resnet18", classes=10)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_data_are_brought_to_what_a_library_evaluates_with(libraries, library, tmp_path):
    from PIL import Image

    from steadygrad.data.data_plan import DataPlan

    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    for title in ("cat", "dog", "eel") if library == "torchvision" else "0123":
        (tmp_path / "photos" / "test" / title).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / "test" / title / "0.png")
    plan = DataPlan(data=str(tmp_path / "photos"))
    model = load(f"{library}:resnet18", data=plan.opened())
    # Resize(4, bicubic) and CenterCrop(2).
    wanted = np.asarray(Image.fromarray(pixels).resize((6, 4), Image.Resampling.BICUBIC))[1:3, 2:4]
    assert np.array_equal(plan.load(like=model).images[0].permute(1, 2, 0).numpy(), wanted)
    assert DataPlan(data=plan.data, size="5").load(like=model).shape == (3, 5, 5)
    assert load(f"{library}:resnet18", data=plan.opened(), input_shape=(3, 2, 2)).input_shape == (3, 2, 2)


def test_torchvision_weights_are_read_as_tensors_only(libraries):
    load("torchvision:resnet18")
    assert libraries["weights_only"] is True


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_library_models_take_own_weights_and_classes(libraries, library, tmp_path):
    state = {"1.weight": torch.ones(2, 12), "1.bias": torch.zeros(2)}
    save_file(state, tmp_path / "a.safetensors")
    model = load(f"{library}:resnet18", weights=tmp_path / "a.safetensors", classes=["a", "b"])
    assert torch.equal(model.module[1].weight, state["1.weight"])
    assert model.classes == ("a", "b")
    assert load(f"{library}:resnet18", input_shape=(3, 1, 4)).input_shape == (3, 1, 4)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_unknown_library_models_list_near_names(libraries, library):
    with pytest.raises(UsageError, match=f"there is no {library} model 'resnet81'; near names: resnet18"):
        load(f"{library}:resnet81")


def test_a_library_that_fails_is_quoted(libraries):
    with pytest.raises(Failure, match="timm could not make 'broken': OSError: no network"):
        load("timm:broken")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'timm'", name="timm"), "timm is not installed: pip install timm"),
        (ModuleNotFoundError("No ...", name="yaml"), "timm is installed but needs 'yaml': pip install yaml"),
        (
            RuntimeError("operator x does not exist"),
            "does not import .RuntimeError: operator x.*torch torchvision timm",
        ),
    ],
)
def test_a_missing_or_broken_library_gives_the_command(monkeypatch, error, message):
    def import_module(name):
        raise error

    monkeypatch.setattr(sources.importlib, "import_module", import_module)
    with pytest.raises(Failure, match=message):
        load("timm:resnet18")


# The Hub


def test_a_hub_model_is_downloaded_and_rebuilt(monkeypatch, tmp_path):
    import huggingface_hub

    model, asked = small(), []
    model.save(tmp_path / "model.safetensors")

    def download(repository, filename, revision):
        asked.append((repository, filename, revision))
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for spec in ("hub:owner/na.me-1", "hub:owner/na.me-1@v1"):
        assert torch.equal(load(spec)(batch(model)), model(batch(model)))
    assert asked == [("owner/na.me-1", "model.safetensors", revision) for revision in (None, "v1")]


def test_a_download_that_fails_is_quoted(monkeypatch):
    import huggingface_hub

    def download(repository, filename, revision):
        raise OSError("404 Client Error\nmany more lines")

    monkeypatch.setattr("steadygrad.offline.unreachable", lambda: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(
        Failure, match=r"cannot fetch model\.safetensors of owner/name from the Hub: 404 Client Error \("
    ):
        load("hub:owner/name")


@pytest.mark.parametrize("spec", ["hub:", "hub:name", "hub:a/b/c", "hub:../b c"])
def test_a_hub_name_must_have_an_owner(spec):
    with pytest.raises(UsageError, match="a Hub model is hub:owner/name"):
        load(spec)
