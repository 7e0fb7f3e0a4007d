"""Baselines that are no single number: a value for each channel, an image, a file, the blurred input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import nets
import steadygrad as sg
from steadygrad.attributions import IntegratedGradients, Occlusion
from steadygrad.attributions.faithfulness import deletion, deletion_gain, insertion
from steadygrad.registry import build, describe, label_of, parse

SHAPE = (3, 6, 5)
IMAGE = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
COLOR = (0.1, 0.2, 0.3)
COLUMN = torch.tensor(COLOR, dtype=torch.float64).view(3, 1, 1)


class _Cubic(nn.Module):
    """Logits whose path integral a rule of two points gets right."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 90, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return (x.flatten(1) ** 3) @ self.w.T


def _net():
    torch.manual_seed(3)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Conv2d(4, 4, 2), nn.Tanh()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
    ).double()


def _blurred(x):
    ndimage = pytest.importorskip("scipy.ndimage")
    flat = [[ndimage.gaussian_filter(c.numpy(), 5.0, mode="reflect") for c in one] for one in x]
    return torch.from_numpy(np.array(flat))


GIVEN = {
    "a number": (0.4, lambda x: torch.full_like(x, 0.4)),
    "a whole number": (1, torch.ones_like),
    "a text": ("51/255", lambda x: torch.full_like(x, 0.2)),
    "a NumPy number": (np.float32(0.5), lambda x: torch.full_like(x, 0.5)),
    "a tensor number": (torch.tensor(0.5), lambda x: torch.full_like(x, 0.5)),
    "a tuple": (COLOR, lambda x: COLUMN.expand_as(x)),
    "a list": (list(COLOR), lambda x: COLUMN.expand_as(x)),
    "an array of channels": (np.array(COLOR), lambda x: COLUMN.expand_as(x)),
    "a column of channels": (COLUMN, lambda x: COLUMN.expand_as(x)),
    "a batch of channels": (COLUMN[None], lambda x: COLUMN.expand_as(x)),
    "an image": (IMAGE, lambda x: IMAGE.expand_as(x)),
    "a batch of one image": (IMAGE[None], lambda x: IMAGE.expand_as(x)),
    "an array": (IMAGE.numpy(), lambda x: IMAGE.expand_as(x)),
    "nested lists": (IMAGE.tolist(), lambda x: IMAGE.expand_as(x)),
    "one plane for all channels": (IMAGE[:1], lambda x: IMAGE[:1].expand_as(x)),
    "a blur": ("blur", _blurred),
}


@pytest.fixture
def x():
    return torch.rand(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


TARGET = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("name", GIVEN)
def test_maps_are_complete_from_every_baseline(name, x):
    given, expected = GIVEN[name]
    model, method = _Cubic(), IntegratedGradients(steps=2, baseline=given)
    with torch.no_grad():
        truth = (model(x) - model(expected(x))).gather(1, TARGET[:, None])[:, 0]
    maps = method(model, x, TARGET)
    torch.testing.assert_close(maps.flatten(1).sum(1), truth)
    assert method.delta(model, x, TARGET, maps).abs().max() < 1e-9


@pytest.mark.parametrize("name", GIVEN)
def test_maps_are_those_of_the_plain_sum(name, x):
    given, expected = GIVEN[name]
    model = _net()
    base, points, total = expected(x), 400, torch.zeros_like(x)
    for i in range(points):
        leaf = (base + (i + 0.5) / points * (x - base)).requires_grad_()
        (slope,) = torch.autograd.grad(model(leaf).gather(1, TARGET[:, None]).sum(), leaf)
        total += slope / points
    found = IntegratedGradients(steps=24, baseline=given)(model, x, TARGET)
    torch.testing.assert_close(found, (x - base) * total, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", GIVEN)
def test_methods_compare_hash_and_go_through_plain_data(name):
    for kind in (IntegratedGradients, Occlusion):
        method = kind(baseline=GIVEN[name][0])
        assert method == kind(baseline=GIVEN[name][0])
        assert hash(method) == hash(kind(baseline=GIVEN[name][0]))
        plain = describe(method)
        again = build("attribution", plain.pop("name"), plain)
        assert again == method
        assert len(label_of(method)) < 100
    assert kind(baseline=GIVEN[name][0]) != kind(baseline=0.123)


def test_labels_tell_images_apart():
    labels = {label_of(IntegratedGradients(baseline=i)) for i in (IMAGE, IMAGE + 1, 0.5, "blur", COLOR)}
    assert len(labels) == 5


def test_baselines_in_flags_and_files(tmp_path, x):
    np.save(tmp_path / "mean.npy", IMAGE.numpy())
    same = parse("attribution", f"integrated_gradients:baseline={tmp_path / 'mean.npy'}")
    assert same == IntegratedGradients(baseline=IMAGE)
    assert parse("attribution", "integrated_gradients:baseline=blur").baseline == "blur"
    assert parse("attribution", "integrated_gradients:baseline=[0.1,0.2,0.3]").baseline == COLOR
    (tmp_path / "mean.npy").unlink()
    same(_Cubic(), x, TARGET)


@pytest.mark.parametrize("name", ["a number", "a tuple", "a blur"])
def test_occlusion_covers_with_the_baseline(name, x):
    given, expected = GIVEN[name]
    model, square = _net(), x[:, :, :5, :5]  # one square covers the whole image
    maps = Occlusion(window=1.0, stride=1.0, baseline=given)(model, square, TARGET)
    there, gone = (model(p).gather(1, TARGET[:, None])[:, 0].detach() for p in (square, expected(square)))
    torch.testing.assert_close(maps.sum(1)[:, 0, 0], there - gone)


@pytest.mark.parametrize("curve", [deletion, insertion])
@pytest.mark.parametrize("name", GIVEN)
def test_curves_are_filled_with_it(curve, name, x):
    given, expected = GIVEN[name]
    model = _net()
    found = curve(model, x, x, TARGET, fill=given, steps=4).scores
    ends = [model(p).softmax(1).gather(1, TARGET[:, None])[:, 0].detach() for p in (x, expected(x))]
    ends = ends if curve is deletion else ends[::-1]
    torch.testing.assert_close(found[:, [0, -1]], torch.stack(ends, 1))


def test_the_derivative_of_maps_knows_that_the_blur_follows_the_input(x):
    import gates

    model = _net()
    for given in ("blur", IMAGE):
        method = IntegratedGradients(steps=6, baseline=given)
        gates.assert_gradient(lambda p, method=method: method(model, p, TARGET[:1], create_graph=True), x[:1])


def test_bounds_know_images_and_refuse_the_blur():
    model, x = nets.build("mlp", shape=(3, 2, 2), dtype=torch.float64), torch.rand(3, 3, 2, 2, dtype=torch.float64)
    target = torch.tensor([0, 1, 2])
    for given in (COLOR, torch.rand(3, 2, 2)):
        method = IntegratedGradients(steps=3, baseline=given)
        before = method(model, x, target)
        for bound in (sg.bounds.LinearizedDeviation(method), sg.bounds.CertifiedDeviation(method)):
            found = bound(model, x, target, sg.linf(0.003))
            assert (found.upper <= 1.5 * found.lower).all()
            for seed in range(10):
                noise = 0.003 * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) - 1).double()
                moved = (method(model, (x + noise).clamp(0, 1), target) - before).flatten(1).norm(dim=1)
                assert (moved <= 1.01 * found.upper).all()
    with pytest.raises(sg.UsageError, match="no bounds for baseline='blur'"):
        sg.bounds.LinearizedDeviation(IntegratedGradients(baseline="blur"))


@pytest.mark.parametrize(
    "given",
    [
        float("nan"),
        float("inf"),
        "mean",
        None,
        True,
        [],
        [[1, 2], [3]],
        {"a": 1},
        torch.tensor([0.0, float("nan")]),
        1j,
    ],
    ids=str,
)
def test_what_is_no_baseline_is_refused(given):
    for kind in (IntegratedGradients, Occlusion):
        with pytest.raises(sg.UsageError, match=r"baseline must (be a finite number, one for each|hold real numbers)"):
            kind(baseline=given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0.1, 0.2), r"shape \(2,\).*\(4, 3, 6, 5\).*3 channels.*\(3, 6, 5\)"),
        (torch.rand(3, 5, 6), r"shape \(3, 5, 6\)"),
        (torch.rand(2, 3, 6, 5), r"shape \(2, 3, 6, 5\)"),
        (torch.rand(4, 3, 6, 5), r"shape \(4, 3, 6, 5\)"),
    ],
)
def test_a_baseline_of_another_shape_is_refused(given, message, x):
    model = _net()
    with pytest.raises(sg.UsageError, match=message):
        IntegratedGradients(baseline=given)(model, x, TARGET)
    with pytest.raises(sg.UsageError, match=message.replace("baseline", "fill")):
        deletion_gain(model, x, x, TARGET, fill=given)


def test_missing_and_damaged_files_are_refused(tmp_path):
    (tmp_path / "text.npy").write_text("no array")
    for path in (tmp_path / "missing.npy", tmp_path / "text.npy"):
        with pytest.raises(sg.UsageError, match="baseline cannot be read from"):
            IntegratedGradients(baseline=str(path))


def test_a_blur_is_for_images():
    model, x = nn.Linear(4, 3), torch.rand(2, 4)
    with pytest.raises(sg.UsageError, match="baseline='blur' is for images"):
        IntegratedGradients(baseline="blur")(model, x, TARGET[:2])
    vector = IntegratedGradients(baseline=(0.1, 0.2, 0.3, 0.4))(model, x, TARGET[:2])
    expected = (x - torch.tensor([0.1, 0.2, 0.3, 0.4])) * model.weight[TARGET[:2]]
    torch.testing.assert_close(vector, expected.detach())
