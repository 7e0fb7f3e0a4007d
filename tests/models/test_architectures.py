"""Every registered architecture: shapes, sizes, seeds, settings, derivatives."""

from __future__ import annotations

import pathlib
import re

import pytest
import torch
from torch import nn

from steadygrad import derivatives, smoothing
from steadygrad.classifier import frozen
from steadygrad.errors import UsageError
from steadygrad.models import ARCHITECTURES, build

ROWS = list(ARCHITECTURES.values())
NAMES = [row.name for row in ROWS]
# Narrow variants, where there is a width: the same structure in a fraction of the time.
NARROW = {
    "mlp": {"hidden": (20, 10)},
    "lenet": {"hidden": 30},
    "ross_cnn": {"hidden": 30},
    "vgg16": {"width": 4},
    "resnet18": {"width": 4},
    "alexnet": {"width": 4, "hidden": 16},
    "vit": {"width": 16, "depth": 2},
}
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 37, 41)]


def narrow(name, shape=None, classes=10, **more):
    settings = {**NARROW.get(name, {}), **more}
    if name == "vit" and shape == (3, 37, 41):
        settings["patch"] = 1
    return build(name, shape or ARCHITECTURES[name].input_shape, classes, **settings)


def images(shape, count=3):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_maps_images_to_logits_or_says_the_smallest_size(name, shape):
    smallest = ARCHITECTURES[name].smallest
    if min(shape[1:]) < smallest:
        with pytest.raises(UsageError, match=f"{name} takes images .* at least {smallest} x {smallest} pixels, got"):
            narrow(name, shape)
        return
    logits = narrow(name, shape, classes=7).eval()(images(shape))
    assert logits.shape == (3, 7)
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("row", [row for row in ROWS if row.smallest], ids=lambda row: row.name)
def test_the_smallest_size_works_and_one_less_does_not(row):
    shape = (2, row.smallest, row.smallest)
    settings = {"patch": 1} if row.name == "vit" else {}
    assert narrow(row.name, shape, **settings).eval()(images(shape)).shape == (3, 10)
    for shape in [(2, row.smallest - 1, 40), (2, 40, row.smallest - 1), (40, 40), (3,)]:
        with pytest.raises(UsageError, match=r"takes images|positive sizes"):
            narrow(row.name, shape)


# Convolution: inputs x outputs x area + outputs; linear: inputs x outputs + outputs; batch norm: 2 x channels.
PARAMETERS = {
    "mlp": 784 * 500 + 500 + 500 * 150 + 150 + 150 * 10 + 10,
    "lenet": (25 * 20 + 20) + (20 * 25 * 50 + 50) + (800 * 500 + 500) + (500 * 10 + 10),
    "ross_cnn": (25 * 32 + 3 * 32) + (32 * 25 * 64 + 3 * 64) + (3136 * 1024 + 3 * 1024) + (1024 * 10 + 10),
    "convnet": (75 * 32 + 32) + (32 * 25 * 32 + 32) + (32 * 25 * 64 + 64) + (64 * 16 * 64 + 64) + (64 * 10 + 10),
    "vgg16": 14_714_688 + 2 * 4224 + 512 * 10 + 10,
    "resnet18": 11_173_962,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_has_the_published_number_of_parameters(name):
    model = build(name, ARCHITECTURES[name].input_shape, 10)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


def test_lenet_has_no_rectifier_after_its_convolutions():
    kinds = [type(part).__name__ for part in build("lenet", (1, 28, 28), 10).module]
    assert kinds == ["Conv2d", "MaxPool2d", "Conv2d", "MaxPool2d", "Flatten", "Linear", "ReLU", "Linear"]


def test_alexnet_has_the_channels_of_the_published_one():
    # 64-192-384-256-256, the widths of the single-tower version.
    model = build("alexnet", (3, 32, 32), 10, hidden=16)
    assert [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)] == [64, 192, 384, 256, 256]
    assert sum(isinstance(m, nn.MaxPool2d) for m in model.modules()) == 3
    assert [m.out_features for m in model.modules() if isinstance(m, nn.Linear)] == [16, 16, 10]


def test_nin_ends_in_the_class_maps_averaged():
    model = build("nin", (3, 32, 32), 10).eval()
    assert [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)] == [
        *(192, 160, 96),
        *(192, 192, 192),
        *(192, 192, 10),
    ]
    x = images((3, 32, 32))
    maps = model.module[:-2](x)
    assert maps.shape == (3, 10, 8, 8)
    torch.testing.assert_close(model(x), maps.mean((2, 3)))


def test_convnet_reduces_cifar_images_to_one_position():
    convolutions = build("convnet", (3, 32, 32), 10).module[:-2]
    assert convolutions(images((3, 32, 32))).shape == (3, 64, 1, 1)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 4, 4, 4)])
def test_the_mlp_takes_inputs_of_any_shape(shape):
    assert build("mlp", shape, 3)(images(shape)).shape == (3, 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state(name):
    before = torch.random.get_rng_state()
    first, again, other = (narrow(name, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(123)
    from_another_state = narrow(name, seed=3).state_dict()
    assert all(torch.equal(first[k], again[k]) and torch.equal(first[k], from_another_state[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("name", NAMES)
def test_rectifiers_are_modules_that_keep_their_input(name):
    model = narrow(name)
    assert all(not m.inplace for m in model.modules() if isinstance(m, nn.ReLU))
    kinds = {type(m) for m in model.modules()}
    assert nn.ReLU in kinds or nn.GELU in kinds


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_equals_its_samples_in_evaluation_mode(name):
    model = narrow(name).eval().double()
    x = images(model.input_shape, 4).double()
    torch.testing.assert_close(model(x), torch.cat([model(row[None]) for row in x]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_smoothed_model_has_the_second_derivative_of_finite_differences(name):
    model = smoothing.smooth(narrow(name).double(), beta=20.0)
    x = images(model.model.input_shape, 2).double()
    u = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def scalar(z):
        return model(z).log_softmax(1)[:, 0]

    with frozen(model):
        exact = derivatives.hvp(scalar, x, u)
        step = 1e-6  # short: a longer one crosses switches of the max pooling
        ahead, behind = (derivatives.gradient(scalar, x + s * u)[1] for s in (step, -step))
    assert bool(torch.isfinite(exact).all())
    assert float(exact.abs().max()) > 0
    torch.testing.assert_close(exact, (ahead - behind) / (2 * step), rtol=1e-3, atol=1e-3 * float(exact.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_the_architecture_with_all_its_settings_is_kept(name):
    model = build(name, ARCHITECTURES[name].input_shape, ["a", "b"], mean=0.4, std=[0.2], **NARROW.get(name, {}))
    expected = {**ARCHITECTURES[name].settings, **NARROW.get(name, {})}
    kept = {k: tuple(v) if isinstance(v, list) else v for k, v in model.architecture.items()}
    assert kept == {"name": name, **expected}
    assert model.classes == ("a", "b")
    assert model.settings["mean"] == pytest.approx(0.4)
    assert model.settings["std"] == pytest.approx([0.2])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lennet", {}, "no architecture 'lennet'; did you mean 'lenet'"),
        ("mlp", {"hiden": (3,)}, "there is no setting of mlp 'hiden'; did you mean 'hidden'"),
        ("convnet", {"width": 3}, "convnet has no settings, got 'width'"),
        ("mlp", {"hidden": 3}, "'hidden' of mlp must be a list of positive integers, got 3"),
        ("mlp", {"hidden": (3, 0)}, "must be a list of positive integers"),
        ("lenet", {"hidden": 2.5}, "'hidden' of lenet must be a positive integer, got 2.5"),
        ("lenet", {"hidden": True}, "must be a positive integer"),
        ("nin", {"dropout": 1.0}, r"'dropout' of nin must be a number in \[0, 1\), got 1.0"),
        ("vit", {"patch": 5}, r"multiples of 5 .*'patch' that fit: \[1, 2, 4, 8, 16, 32\]"),
        ("vit", {"width": 10, "heads": 4}, r"'width' of vit must be a multiple of 'heads' \(4\), got 10"),
    ],
)
def test_wrong_names_and_settings_are_refused(name, settings, message):
    with pytest.raises(UsageError, match=message):
        build(name, (3, 32, 32), 10, **settings)


@pytest.mark.parametrize("classes", [1, 0, [], ["one"], "digits"])
def test_classes_must_be_a_number_or_names(classes):
    with pytest.raises(UsageError, match="classes must be a number from 2 to 1,000,000, or a list of names"):
        build("mlp", (4,), classes)


@pytest.mark.parametrize("shape", [(), (0, 8, 8), (1, 8, -1)])
def test_shapes_must_be_positive(shape):
    with pytest.raises(UsageError, match="input_shape must hold positive sizes"):
        build("mlp", shape, 10)


def test_the_digits_network_learns_the_digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.as_tensor(digits.images, dtype=torch.float32)[:, None] / 16
    y = torch.as_tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    model = build("digits_cnn", (1, 8, 8), 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=10 * 45 + 1)
    for _ in range(10):
        for batch in torch.arange(1440).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    accuracy = float((model.eval()(x[1440:]).argmax(1) == y[1440:]).float().mean())
    assert accuracy >= 0.98


def test_the_documented_table_is_the_registry():
    page = pathlib.Path(__file__).parents[2] / "docs" / "models.md"
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \| ([\d,]+) \|$", page.read_text("utf-8"), re.M)
    assert [row[0] for row in rows] == NAMES
    for name, _, settings, smallest, count in rows:
        row = ARCHITECTURES[name]
        assert settings == (", ".join(f"`{k}={v}`" for k, v in row.settings.items()) or "none")
        assert smallest == (f"{row.smallest} × {row.smallest}" if row.smallest else "any shape")
        parameters = sum(p.numel() for p in build(name, row.input_shape, 10).parameters())
        assert int(count.replace(",", "")) == parameters
