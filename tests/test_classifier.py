"""The classifier's units, its file, and the promise to leave a model as it was found."""

from __future__ import annotations

import contextlib
import copy
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import nets
from steadygrad.attacks import FGSM, Expectation
from steadygrad.classifier import (
    Classifier,
    bounds_of,
    check_inputs,
    check_logits,
    evaluating,
    frozen,
    predict,
    unwrap,
)
from steadygrad.errors import Failure, UsageError
from steadygrad.smoothing import smooth
from steadygrad.threat import linf
from steadygrad.weights import read_weights


def _classifier(kind: str = "conv", **settings) -> Classifier:
    return Classifier(nets.build(kind), mean=0.4, std=0.2, classes=3, input_shape=(1, 4, 4), **settings)


# Units


def test_the_module_sees_inputs_normalized_by_channel():
    model = Classifier(nn.Flatten(), mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0])
    x = nets.inputs(2, shape=(3, 2, 2))
    expected = torch.stack([(x[:, 0] - 0.1) / 1.0, (x[:, 1] - 0.2) / 2.0, (x[:, 2] - 0.3) / 4.0], 1)
    torch.testing.assert_close(model(x), expected.flatten(1))


def test_flat_features_may_be_normalized_one_by_one():
    model = Classifier(nn.Identity(), mean=[0.0, 1.0], std=[1.0, 2.0])
    assert model(torch.tensor([[3.0, 3.0]])).tolist() == [[3.0, 1.0]]


@pytest.mark.parametrize(("dtype", "logits"), [(torch.float64, torch.float64), (torch.bfloat16, torch.float32)])
def test_normalization_follows_the_type_of_the_inputs_and_logits_are_never_narrow(dtype, logits):
    x = nets.inputs(2, dtype=dtype)
    assert Classifier(nn.Flatten(), mean=0.5, std=0.5)(x).dtype == logits


def test_gradients_are_in_the_units_of_the_inputs():
    model = Classifier(nn.Identity(), mean=0.5, std=0.25)
    x = torch.rand(1, 2, requires_grad=True)
    model(x).sum().backward()
    assert x.grad.tolist() == [[4.0, 4.0]]


def test_classes_are_names_or_their_number():
    assert Classifier(nn.Identity(), classes=3).classes == ("0", "1", "2")
    assert Classifier(nn.Identity(), classes=["cat", "dog"]).classes == ("cat", "dog")
    assert Classifier(nn.Identity()).classes is None


def test_its_name_is_given_or_the_architecture_or_the_module():
    assert Classifier(nn.Identity(), name="mine").name == "mine"
    assert Classifier(nn.Identity(), architecture={"name": "lenet"}).name == "lenet"
    assert Classifier(nn.Identity()).name == "Identity"
    assert "bounds=(0.0, 1.0), classes=2" in repr(Classifier(nn.Identity(), classes=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"std": 0.0}, "std must be positive, got 0.0"),
        ({"std": [1.0, -1.0]}, r"std must be positive, got \[1.0, -1.0\]"),
        ({"bounds": (1.0, 1.0)}, r"low < high, got \(1.0, 1.0\)"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Classifier(nn.Identity(), **settings)


def test_inputs_of_another_shape_are_refused():
    with pytest.raises(UsageError, match=r"takes inputs of shape \(N, 1, 4, 4\), got \(2, 3, 4, 4\)"):
        _classifier()(torch.rand(2, 3, 4, 4))


# Files


@pytest.mark.parametrize("kind", nets.KINDS)
def test_weights_and_settings_come_back_from_a_file(kind, tmp_path):
    model = _classifier(kind, architecture={"name": kind, "width": 4}, bounds=(-1, 2), name="mine")
    model.save(tmp_path / "model.safetensors")
    settings = read_weights(tmp_path / "model.safetensors").settings
    again = Classifier(nets.build(kind, seed=9), **settings)
    assert again.settings == model.settings
    x = nets.inputs()
    assert not torch.equal(again(x), model(x))
    assert again.load_weights(tmp_path / "model.safetensors") is again
    assert torch.equal(again(x), model(x))


def test_tied_and_transposed_weights_are_saved(tmp_path):
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    module[0].bias = nn.Parameter(torch.randn(3, 3).t()[0])
    Classifier(module).save(tmp_path / "m.safetensors")
    again = Classifier(copy.deepcopy(module)).load_weights(tmp_path / "m.safetensors")
    assert torch.equal(again.module[0].bias, module[0].bias)


@pytest.mark.parametrize("size", [640, 896, 1152, 1408])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path, size):
    path = tmp_path / "m.safetensors"

    def write(padding: int) -> int:
        save_file({"weight": torch.ones(1)}, path, {"steadygrad": json.dumps({"name": "x" * padding})})
        return int.from_bytes(path.read_bytes()[:8], "little")

    write(size - write(0))
    assert int.from_bytes(path.read_bytes()[:8], "little") == size
    assert read_weights(path).parts[""]["weight"].tolist() == [1.0]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_unread(tmp_path, zipped):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was loaded",))

    path = tmp_path / "m.pt"
    torch.save({"weight": Trap()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match=r"m\.pt holds other objects .* could run any code: write its weights alone"):
        _classifier().load_weights(path)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_truncated_file_is_named(tmp_path, kept):
    path = tmp_path / "m.safetensors"
    _classifier().save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(Failure, match=r"m\.safetensors is not a readable safetensors file"):
        _classifier().load_weights(path)


@pytest.mark.parametrize("name", ["absent.safetensors", "."])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(UsageError, match="there is no weights file"):
        _classifier().load_weights(tmp_path / name)


def test_weights_of_another_architecture_name_the_first_differing_keys(tmp_path):
    _classifier("mlp").save(tmp_path / "m.safetensors")
    model = Classifier(nets.build("mlp", classes=5), name="five")
    before = copy.deepcopy(model.module.state_dict())
    with pytest.raises(UsageError, match=r"than five; 2 keys differ: 5\.bias: model \(5,\), file \(3,\); 5\.weight"):
        model.load_weights(tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="file has none"):
        _classifier("conv").load_weights(tmp_path / "m.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())


# Leaving no trace


class _Dropping(nn.Module):
    """Draws from the global generator in its forward pass, in evaluation mode too."""

    def forward(self, x):
        return x + torch.rand_like(x)


def _trained_in_part() -> nn.Module:
    model = nn.Sequential(nets.build("conv"), nn.Dropout(0.5), _Dropping())
    model.train()
    model[0][1].eval()
    model[1].eval()
    model[0][0].weight.requires_grad_(False)
    model[0][0].bias.grad = torch.full_like(model[0][0].bias, 7.0)
    return model


def _state(model: nn.Module) -> dict:
    return {
        "modes": [m.training for m in model.modules()],
        "required": [p.requires_grad for p in model.parameters()],
        "grad": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "values": {k: v.tolist() for k, v in model.state_dict().items()},
        "random": torch.get_rng_state().tolist(),
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    }


def _use(model: nn.Module) -> None:
    x = nets.inputs().requires_grad_()
    torch.autograd.grad(model(x).sum(), x)


@pytest.mark.parametrize("failing", [False, True])
def test_a_frozen_model_is_left_as_it_was(failing):
    model = _trained_in_part()
    before = _state(model)
    with pytest.raises(KeyError) if failing else torch.enable_grad(), frozen(model):
        _use(model)
        assert not any(m.training for m in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        if failing:
            raise KeyError
    assert _state(model) == before


def test_the_state_would_tell_a_trace():
    model = _trained_in_part()
    before = _state(model)
    model.train()
    _use(model)
    after = _state(model)
    assert [k for k in before if before[k] != after[k]] == ["modes", "values", "random"]


def test_frozen_blocks_may_be_nested():
    model = _trained_in_part()
    before = _state(model)
    with frozen(model), frozen(model):
        _use(model)
    assert _state(model) == before


def test_no_weight_gradient_is_computed_in_a_frozen_model():
    model = nets.build("mlp")
    with frozen(model):
        logits = model(nets.inputs())
        assert not logits.requires_grad


def test_wrappers_are_taken_off():
    module = nn.Linear(2, 2)
    assert unwrap(nn.DataParallel(nn.DataParallel(module))) is module
    assert unwrap(module) is module


# Checks


def test_good_inputs_and_labels_pass():
    check_inputs(torch.rand(2, 3), torch.tensor([0, 1]), (0.0, 1.0), 2)
    check_inputs(torch.tensor([[0.0, 1.00005]]), None, (0.0, 1.0))
    check_inputs(torch.full((1, 1), 255.0), torch.tensor([9], dtype=torch.uint8), (0.0, 255.0))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([[[[-2.1, 2.6]]]]), r"within \[0, 1\], got \[-2.1, 2.6\]: did you normalize them\?"),
        (torch.tensor([[torch.nan, 0.5]]), "inputs must be finite, got NaN"),
        (torch.rand(0, 3), "the batch of inputs is empty"),
        (torch.rand(3), r"batch of inputs \(N, \*\), got torch.float32 of shape \(3,\): a single"),
        (torch.zeros(1, 3, dtype=torch.uint8), "got torch.uint8"),
    ],
)
def test_bad_inputs_are_refused(x, message):
    with pytest.raises(UsageError, match=message):
        check_inputs(x, None, (0.0, 1.0))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0, 3]), r"within 0..2 \(the model has 3 classes\), got 0..3"),
        (torch.tensor([-1, 0]), "got -1..0"),
        (torch.tensor([0.0, 1.0]), r"integer labels of shape \(2,\), got torch.float32"),
        (torch.tensor([True, False]), "got torch.bool"),
        (torch.tensor([0, 1, 2]), r"integer labels of shape \(2,\), got torch.int64 of shape \(3,\)"),
        (torch.zeros(2, 3, dtype=torch.int64), r"of shape \(2, 3\)"),
    ],
)
def test_bad_labels_are_refused(y, message):
    with pytest.raises(UsageError, match=message):
        check_inputs(torch.rand(2, 4), y, (0.0, 1.0), 3)


def test_good_logits_pass():
    check_logits(torch.tensor([[2.0, -1.0], [0.0, 0.0]]), 2)
    # Not negative, but no row of a softmax.
    check_logits(torch.tensor([[0.5, 0.6], [0.5, 0.5]]), 2)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([1.0], r"a tensor of logits \(N, K\), got list"),
        (torch.zeros(2), r"for 2 inputs, got shape \(2,\)"),
        (torch.zeros(3, 4), r"for 2 inputs, got shape \(3, 4\)"),
        (torch.zeros(2, 1), r"K of at least 2 for 2 inputs, got shape \(2, 1\)"),
        (torch.zeros(2, 3, 4, 4), r"got shape \(2, 3, 4, 4\)"),
        (torch.tensor([[3.0, -1.0], [0.2, -3.0]]).softmax(1), "returns probabilities .* remove its last softmax"),
    ],
)
def test_bad_outputs_are_refused(logits, message):
    with pytest.raises(UsageError, match=message):
        check_logits(logits, 2)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_counted(value):
    with pytest.raises(Failure, match="NaN or infinite logits for 1 of 2 inputs"):
        check_logits(torch.tensor([[0.0, value], [0.0, 1.0]]), 2)


def test_the_bounds_are_found_inside_wrappers_that_leave_the_inputs_as_they_are():
    inner = Classifier(nn.Linear(2, 3), bounds=(-1.0, 2.0))
    for model in (inner, nn.DataParallel(inner), smooth(nn.DataParallel(inner)), Expectation(smooth(inner), draws=2)):
        assert bounds_of(model) == (-1.0, 2.0)
        with pytest.raises(UsageError, match=r"bounds \(0\.0, 1\.0\) but the classifier \(-1\.0, 2\.0\)"):
            FGSM()(model, torch.rand(4, 2), torch.zeros(4, dtype=torch.int64), linf(0.1))
    # Another module around a classifier may feed it something else than its own inputs.
    assert bounds_of(nn.Sequential(nn.ReLU(), inner)) is None
    assert bounds_of(nn.Linear(2, 3)) is None


def test_evaluation_mode_is_left_as_it_was_found():
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2)).train()
    model[1].eval()
    seen = []
    with contextlib.suppress(KeyError), evaluating(model):
        seen = [m.training for m in model.modules()]
        raise KeyError
    assert seen == [False] * 3
    assert [m.training for m in model.modules()] == [True, True, False]
    assert all(p.requires_grad for p in model.parameters())


def test_predict_leaves_no_graph() -> None:
    x = nets.inputs().requires_grad_()
    classes, confidence = predict(nets.build(), x)
    assert not confidence.requires_grad
    assert classes.dtype == torch.int64
