"""rho2 against closed forms: every sample counts, pixels and centered, in cells."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import steadygrad as sg
from evaluation.victims import Counting, Halfspace, Quantized, features
from oracles import intervals
from steadygrad.attacks import DeepFool
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.evaluation import mean_image, rho2
from steadygrad.evaluation.records import Cells

W, BIAS = [1.0, -2.0, 0.5], -0.2
X = 0.35 + 0.3 * torch.rand(50, 3, generator=torch.Generator().manual_seed(3))
SCORE = (X.double() @ torch.tensor(W, dtype=torch.float64) - BIAS).abs()


def _data(labels: Tensor | None = None) -> Dataset:
    return features(X.tolist(), (labels if labels is not None else torch.zeros(50, dtype=torch.int64)).tolist())


def test_of_a_half_space_it_is_the_distance_to_it_with_the_overshoot() -> None:
    want = 1.02 * SCORE / math.sqrt(5.25) / X.double().norm(dim=1)
    found = rho2(Halfspace(W, BIAS), _data())
    center, low, high = intervals.student_interval(want.tolist())
    assert found.pixels is not None
    assert found.pixels.value == pytest.approx(center, rel=1e-4)
    assert (found.pixels.low, found.pixels.high) == pytest.approx((low, high), rel=1e-3)
    assert found.pixels.count == 50
    assert found.centered is None
    assert found.turned.value == 1.0


def test_centered_divides_by_the_distance_to_the_center() -> None:
    center = torch.tensor([0.2, 0.1, 0.9])
    want = 1.02 * SCORE / math.sqrt(5.25) / (X - center).double().norm(dim=1)
    found = rho2(Halfspace(W, BIAS), _data(), center=center)
    assert found.centered is not None
    assert found.centered.value == pytest.approx(float(want.mean()), rel=1e-4)


def test_labels_play_no_part() -> None:
    # Misclassified samples move away from the predicted class as all others do.
    predicted = Halfspace(W, BIAS)(X).argmax(1)
    right, wrong = (rho2(Halfspace(W, BIAS), _data(labels)) for labels in (predicted, 1 - predicted))
    assert right == wrong


class Curved(nn.Module):
    """A boundary that one linear step does not reach."""

    def forward(self, x: Tensor) -> Tensor:
        score = ((x.flatten(1) - 0.1) ** 2).sum(1) - 0.01
        return torch.stack([score, -score], 1)


def test_samples_that_were_not_turned_count_with_the_change_they_got() -> None:
    few, many = (rho2(Curved(), _data(), attack=DeepFool(steps=s)) for s in (1, 20))
    assert few.turned.value < 0.1
    assert many.turned.value == 1.0
    assert few.pixels is not None
    assert many.pixels is not None
    # One step of Newton goes about half of the way to a minimum.
    assert 0.3 * many.pixels.value < few.pixels.value < many.pixels.value


def test_a_model_without_gradients_is_not_taken_for_fragile(honest: Classifier, digits: Dataset) -> None:
    found = rho2(Quantized(honest), digits.take(30))
    assert found.turned.value < 0.1  # which is what the score of zero has to be read with
    assert found.pixels is not None
    assert found.pixels.value < 0.01


def test_black_images_have_no_relative_distance() -> None:
    x = X.clone()
    x[:5] = 0
    found = rho2(Halfspace(W, BIAS), features(x.tolist(), [0] * 50))
    assert found.pixels is not None
    assert found.pixels.count == 45
    assert found.turned.count == 50
    assert rho2(Halfspace(W, 0.3), features([[0.0, 0.0, 0.0]] * 4, [0] * 4)).pixels is None


def test_batches_and_chunks_play_no_part(monkeypatch: pytest.MonkeyPatch, honest: Classifier, digits: Dataset) -> None:
    from steadygrad.evaluation import robustness

    data = digits.take(30)
    whole = rho2(honest, data)
    monkeypatch.setattr(robustness, "CHUNK", 7)
    pieces = rho2(honest, data, batch_size=4)
    assert whole.pixels is not None
    assert pieces.pixels is not None
    assert pieces.pixels.value == pytest.approx(whole.pixels.value, rel=1e-4)
    assert pieces.turned == whole.turned


def test_cells_keep_the_work(tmp_path: Path, honest: Classifier, digits: Dataset) -> None:
    data, counting = digits.take(20), Counting(honest)
    first = rho2(counting, data, cells=Cells(tmp_path))
    rows = counting._rows
    again = rho2(counting, data, cells=Cells(tmp_path), center=mean_image(data))
    assert counting._rows == rows
    assert again.pixels == first.pixels
    assert again.centered is not None
    plain = again.plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_the_mean_image_is_the_mean_of_all_images(digits: Dataset) -> None:
    assert torch.allclose(mean_image(digits), digits.tensors()[0].mean(0), atol=1e-6)
    assert mean_image(digits).shape == digits.shape


def test_wrong_calls_are_refused(honest: Classifier, digits: Dataset) -> None:
    with pytest.raises(UsageError, match=r"center must be one input of shape \(1, 8, 8\), got \(64,\)"):
        rho2(honest, digits.take(5), center=torch.zeros(64))
    with pytest.raises(UsageError, match="inputs must lie within"):
        rho2(honest, digits.take(5), bounds=(0.4, 0.6))
    with pytest.raises(UsageError, match="returns probabilities"):
        rho2(nn.Sequential(honest, nn.Softmax(1)), digits.take(5))


def test_the_model_is_left_as_it_was(digits: Dataset) -> None:
    model = sg.models.build("mlp", (1, 8, 8), 10, hidden=(8,)).train()
    state = torch.get_rng_state()
    rho2(model, digits.take(10))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
