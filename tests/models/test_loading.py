"""`models.load`: every form of a model, and what is said when it is not one."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from steadygrad.classifier import Classifier
from steadygrad.data import from_arrays
from steadygrad.errors import Failure, UsageError
from steadygrad.models import ARCHITECTURES, build, load

SMALL = {"mlp": {"hidden": (9, 5)}, "vgg16": {"width": 2}, "resnet18": {"width": 2}, "vit": {"width": 8, "depth": 1}}

NETS = """
import torch
from torch import nn
from steadygrad.classifier import Classifier

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

def classifier():
    return Classifier(net(), mean=0.5, std=0.25, classes=["a", "b", "c"], input_shape=(1, 4, 4))

class Net(nn.Module):
    tiny = staticmethod(net)

ready = net()
number = 3

def table():
    return {"weight": torch.zeros(3)}

def broken():
    raise KeyError("my own message")

def needs(width):
    return net()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a module of nets in it that no other test has imported."""
    (tmp_path / "usernets.py").write_text(NETS, "utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("usernets")]:
        del sys.modules[name]


def small(name="mlp", seed=5, **more):
    settings = {**SMALL.get(name, {}), **more}
    shape = ARCHITECTURES[name].input_shape
    return build(name, shape, ["x", "y", "z"], seed=seed, mean=0.3, std=0.7, bounds=(0.0, 2.0), **settings).eval()


def batch(model, count=2):
    return torch.rand(count, *model.input_shape, generator=torch.Generator().manual_seed(0))


# Files


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_a_saved_model_comes_back_with_equal_logits(name, tmp_path):
    model = small(name)
    model.train()
    model(batch(model, 4))  # moves the running statistics of batch norm, which must be saved too
    model.eval()
    model.name = "hardened"
    model.save(tmp_path / "a.safetensors")
    state = torch.random.get_rng_state()
    again = load(tmp_path / "a.safetensors")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert again.settings == model.settings
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(batch(model)), model(batch(model)))


def test_a_run_folder_gives_its_one_model(tmp_path):
    model = small()
    model.save(tmp_path / "models" / "plain.safetensors")
    (tmp_path / "models" / ".plain.safetensors.x.safetensors").write_bytes(b"half written")
    assert torch.equal(load(tmp_path)(batch(model)), model(batch(model)))
    assert torch.equal(load(str(tmp_path / "models"))(batch(model)), model(batch(model)))


def test_a_run_folder_with_several_models_lists_them(tmp_path):
    for name in ("plain", "hard"):
        small().save(tmp_path / "models" / f"{name}.safetensors")
    with pytest.raises(UsageError, match=r"holds 2 models, give one: .*hard\.safetensors, .*plain\.safetensors"):
        load(tmp_path)


def test_a_folder_without_models_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no models/\*\.safetensors"):
        load(tmp_path)


def test_a_run_folder_named_like_an_architecture_is_ambiguous(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlp").mkdir()
    assert load("mlp").name == "mlp"  # an empty folder is no model
    small(seed=1).save(tmp_path / "mlp" / "models" / "plain.safetensors")
    with pytest.raises(UsageError, match=r"is a run folder and an architecture: write \./mlp, or mlp:"):
        load("mlp")
    assert load("./mlp").classes == ("x", "y", "z")
    assert len(load("mlp:").classes) == 10


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_checkpoints_do_not_say_their_architecture(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save(small().module.state_dict(), path)
    with pytest.raises(UsageError, match=r"does not say its architecture .* with these as weights"):
        load(path)


@pytest.mark.parametrize("spec", ["missing.safetensors", "runs/missing.pt"])
def test_missing_files_are_named(spec):
    with pytest.raises(UsageError, match=f"there is no weights file {spec}"):
        load(spec)
    with pytest.raises(UsageError, match=f"there is no weights file {spec}"):
        load("mlp", weights=spec)


def test_a_missing_folder_points_to_the_hub():
    with pytest.raises(UsageError, match=r"no file or folder owner/name \(for a Hub model write hub:owner/name"):
        load("owner/name")


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    small().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Failure, match=r"a\.safetensors is not a readable safetensors file"):
        load(path)


def test_a_file_of_a_custom_module_imports_nothing(folder):
    model = load("usernets:classifier")
    model.save("own.safetensors")
    del sys.modules["usernets"]
    with pytest.raises(UsageError, match=r"weights of 'usernets:classifier', .*load usernets:classifier .*--weights"):
        load("own.safetensors")
    assert "usernets" not in sys.modules
    again = load("usernets:classifier", weights="own.safetensors")
    assert torch.equal(again(batch(model)), model(batch(model)))


def test_a_file_without_an_architecture_says_how_to_load_it(tmp_path):
    Classifier(nn.Linear(4, 2)).save(tmp_path / "a.safetensors")
    with pytest.raises(
        UsageError, match="a module of its own, which is not a registered architecture: load module:call"
    ):
        load(tmp_path / "a.safetensors")
    save_file({"weight": torch.zeros(2, 4)}, tmp_path / "b.safetensors")
    with pytest.raises(
        UsageError, match=r"does not say its architecture .*give an architecture name or module:callable"
    ):
        load(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ([1], Failure, "damaged metadata"),
        ({"architecture": "mlp"}, Failure, "damaged metadata"),
        ({"architecture": {"name": "mlp"}, "input_shape": [4], "classes": 2, "mean": "?"}, UsageError, "mean must be"),
        (
            {"architecture": {"name": "mlp", "deep": 1}, "input_shape": [4], "classes": 2},
            UsageError,
            "no setting .*'deep'",
        ),
        ({"architecture": {"name": "mlp"}, "classes": 2}, UsageError, "does not say its input shape"),
        ({"architecture": {"name": ["mlp"]}}, UsageError, "not a registered architecture"),
    ],
)
def test_damaged_metadata_is_named(tmp_path, settings, kind, message):
    path = tmp_path / "a.safetensors"
    save_file({"weight": torch.zeros(1)}, path, {"steadygrad": json.dumps(settings)})
    with pytest.raises(kind, match=f"a.safetensors.*{message}"):
        load(path)


def test_a_file_takes_no_other_weights(tmp_path):
    small().save(tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="holds its own weights"):
        load(tmp_path / "a.safetensors", weights=tmp_path / "b.safetensors")


# Architectures by name


def test_an_architecture_name_gives_an_untrained_model():
    assert load("lenet").input_shape == (1, 28, 28)
    model = load("mlp:hidden=[7,6]", input_shape=(2, 3), classes=["a", "b"])
    assert model.architecture == {"name": "mlp", "hidden": [7, 6]}
    assert (model.input_shape, model.classes) == ((2, 3), ("a", "b"))
    assert load("vit:width=8,depth=1", classes=3).architecture["depth"] == 1


def test_an_architecture_takes_weights_with_and_without_settings(tmp_path):
    model = small()
    model.save(tmp_path / "a.safetensors")
    again = load("mlp", weights=tmp_path / "a.safetensors")
    assert again.settings == model.settings
    save_file(model.module.state_dict(), tmp_path / "b.safetensors")
    plain = load("mlp:hidden=[9,5]", weights=tmp_path / "b.safetensors", classes=3)
    x = batch(model)
    assert torch.equal(plain(x), model.module(x))


def test_weights_of_another_architecture_name_the_differing_keys(tmp_path):
    small("lenet").save(tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=r"another architecture than mlp.*0\.bias: model has none, file \(20,\)"):
        load("mlp", weights=tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="another architecture than mlp"):
        load("mlp:hidden=[9]", weights=tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lennet", "no model 'lennet'; did you mean 'lenet'.*timm:NAME"),
        ("mlp:hidden", r"'hidden' is not key=value \(example"),
        ("mlp:hidden=wide", "'hidden' of mlp must be a list of positive integers, got 'wide'"),
        ("mlp:width=3", "no setting of mlp 'width'"),
    ],
)
def test_wrong_names_are_refused(spec, message):
    with pytest.raises(UsageError, match=message):
        load(spec)


def test_what_the_data_says_is_filled_in_or_refused(tmp_path, folder):
    data = from_arrays(torch.rand(3, 1, 4, 4), torch.arange(3), ["a", "b", "c"])
    assert load("digits_cnn", data=data).classes == ("a", "b", "c")
    plain = load("usernets:net", data=data)
    assert (plain.input_shape, plain.classes) == ((1, 4, 4), ("a", "b", "c"))
    small().save(tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=r"takes inputs of shape \(1, 28, 28\), got data of shape \(1, 4, 4\)"):
        load(tmp_path / "a.safetensors", input_shape=(1, 4, 4))
    with pytest.raises(UsageError, match="has 3 classes, got 10"):
        load(tmp_path / "a.safetensors", classes=10)
    for spec in ("mlp", tmp_path / "a.safetensors"):
        with pytest.raises(UsageError, match="or a list of names, got 'cat'"):
            load(spec, classes="cat")


# module:callable


@pytest.mark.parametrize("name", ["net", "classifier", "Net.tiny", "ready"])
def test_a_callable_gives_its_module(folder, name):
    path, state = list(sys.path), torch.random.get_rng_state()
    model = load(f"usernets:{name}")
    assert model(torch.rand(2, 1, 4, 4)).shape == (2, 3)
    assert not model.training
    assert model.architecture == {"name": f"usernets:{name}"}
    assert sys.path == path
    if name == "net":
        torch.random.set_rng_state(state)
        assert torch.equal(load("usernets:net").module[1].weight, model.module[1].weight)
        assert torch.equal(torch.random.get_rng_state(), state)


def test_a_plain_module_takes_the_settings_of_its_weights(folder):
    model = load("usernets:classifier")
    nn.init.ones_(model.module[1].bias)
    model.save("a.safetensors")
    again = load("usernets:net", weights="a.safetensors")
    assert again.settings == {**model.settings, "architecture": {"name": "usernets:net"}}
    assert torch.equal(again(batch(model)), model(batch(model)))


def test_a_classifier_with_other_normalization_than_its_weights_is_refused(folder):
    Classifier(load("usernets:net").module, mean=0.1).save("a.safetensors")
    with pytest.raises(UsageError, match=r"saved with other settings than usernets:classifier has: mean: model 0\.5"):
        load("usernets:classifier", weights="a.safetensors")


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("usernets:nett", UsageError, "usernets has no 'nett'; near names: net, "),
        ("usernet:net", UsageError, "there is no module 'usernet' in .*near names: usernets"),
        ("usernets.py:net", UsageError, "give the import path, without .py: usernets:net"),
        ("user-nets:net", UsageError, "'user-nets' is not an import path"),
        ("usernets:number", UsageError, "usernets:number is a int, not a callable"),
        ("usernets:table", UsageError, r"usernets:table returned a dict; expected a torch\.nn\.Module"),
        ("usernets:broken", Failure, "usernets:broken failed: KeyError: 'my own message'"),
        ("usernets:needs", Failure, "missing 1 required positional argument: 'width'"),
        ("usernets_bad:net", Failure, "importing usernets_bad failed: ZeroDivisionError: division by zero"),
        ("usernets_lib:net", Failure, "importing usernets_lib failed: .*'not_a_library'; install what it needs"),
    ],
)
def test_wrong_callables_are_explained(folder, spec, kind, message):
    (folder / "usernets_bad.py").write_text("1 / 0\n", "utf-8")
    (folder / "usernets_lib.py").write_text("import not_a_library\n", "utf-8")
    path = list(sys.path)
    with pytest.raises(kind, match=message):
        load(spec)
    assert sys.path == path
