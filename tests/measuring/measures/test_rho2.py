"""rho2 against closed forms: every sample counts, pixels and centered, kept in the store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import steadygrad as sg
from audit.victims import Counting, Halfspace, Quantized, features
from oracles import intervals
from steadygrad.attacks import DeepFool
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.data.mean_image import mean_image
from steadygrad.errors import UsageError
from steadygrad.measuring.measures.rho2 import FIVE_STEPS, Rho2, mean_ratio
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.statistics import Estimate
from steadygrad.measuring.store import Store

W, BIAS = [1.0, -2.0, 0.5], -0.2
X = 0.35 + 0.3 * torch.rand(50, 3, generator=torch.Generator().manual_seed(3))
SCORE = (X.double() @ torch.tensor(W, dtype=torch.float64) - BIAS).abs()


def _data(labels: Tensor | None = None) -> Dataset:
    return features(X.tolist(), (labels if labels is not None else torch.zeros(50, dtype=torch.int64)).tolist())


@dataclass(frozen=True)
class Score:
    """What the table of a model says."""

    pixels: Estimate | None
    centered: Estimate | None
    turned: float
    count: int


def rho2(
    model: nn.Module,
    data: Dataset,
    *,
    center: Tensor | None = None,
    attack: DeepFool = FIVE_STEPS,
    store: Store | None = None,
    batch_size: int = 200,
) -> Score:
    """Measure, and read the table."""
    shared = {} if center is None else {"center": center.numpy()}
    table = Runner({"m": model}, data, store or Store(), batch_size=batch_size).run(Rho2(attack), "m", shared=shared)
    return Score(
        mean_ratio(table), mean_ratio(table, "centered_norm"), float(table["turned"].mean()), len(table["turned"])
    )


def test_of_a_half_space_it_is_the_distance_to_it_with_the_overshoot() -> None:
    want = 1.02 * SCORE / math.sqrt(5.25) / X.double().norm(dim=1)
    found = rho2(Halfspace(W, BIAS), _data())
    center, low, high = intervals.student_interval(want.tolist())
    assert found.pixels is not None
    assert found.pixels.value == pytest.approx(center, rel=1e-4)
    assert (found.pixels.low, found.pixels.high) == pytest.approx((low, high), rel=1e-3)
    assert found.pixels.count == 50
    assert found.centered is None
    assert found.turned == 1.0


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


@pytest.mark.slow
def test_samples_that_were_not_turned_count_with_the_change_they_got() -> None:
    few, many = (rho2(Curved(), _data(), attack=DeepFool(steps=s, overshoot=0.02)) for s in (1, 20))
    assert few.turned < 0.1
    assert many.turned == 1.0
    assert few.pixels is not None
    assert many.pixels is not None
    # One step of Newton goes about half of the way to a minimum.
    assert 0.3 * many.pixels.value < few.pixels.value < many.pixels.value


def test_a_model_without_gradients_is_not_taken_for_fragile(honest: Classifier, digits: Dataset) -> None:
    found = rho2(Quantized(honest), digits.take(30))
    assert found.turned < 0.1  # which is what the score of zero has to be read with
    assert found.pixels is not None
    assert found.pixels.value < 0.01


def test_black_images_have_no_relative_distance() -> None:
    x = X.clone()
    x[:5] = 0
    found = rho2(Halfspace(W, BIAS), features(x.tolist(), [0] * 50))
    assert found.pixels is not None
    assert found.pixels.count == 45
    assert found.count == 50
    assert rho2(Halfspace(W, 0.3), features([[0.0, 0.0, 0.0]] * 4, [0] * 4)).pixels is None


def test_batches_and_chunks_play_no_part(monkeypatch: pytest.MonkeyPatch, honest: Classifier, digits: Dataset) -> None:
    data = digits.take(30)
    whole = rho2(honest, data)
    monkeypatch.setattr(Rho2, "shard", 7)
    pieces = rho2(honest, data, batch_size=4)
    assert whole.pixels is not None
    assert pieces.pixels is not None
    assert pieces.pixels.value == pytest.approx(whole.pixels.value, rel=1e-4)
    assert pieces.turned == whole.turned


def test_the_store_keeps_the_work(tmp_path: Path, honest: Classifier, digits: Dataset) -> None:
    data, counting = digits.take(20), Counting(honest)
    first = rho2(counting, data, store=Store(tmp_path), center=mean_image(data))
    rows = counting.rows
    again = rho2(counting, data, store=Store(tmp_path), center=mean_image(data))
    assert counting.rows == rows > 0
    assert again == first
    assert again.centered is not None
    # Another center is another table.
    assert rho2(counting, data, store=Store(tmp_path)).pixels == first.pixels
    assert counting.rows == 2 * rows


def test_the_mean_image_is_the_mean_of_all_images(digits: Dataset) -> None:
    assert torch.allclose(mean_image(digits), digits.tensors()[0].mean(0), atol=1e-6)
    assert mean_image(digits).shape == digits.shape


def test_wrong_calls_are_refused(honest: Classifier, digits: Dataset) -> None:
    with pytest.raises(UsageError, match="returns probabilities"):
        rho2(nn.Sequential(honest, nn.Softmax(1)), digits.take(5))


def test_the_model_is_left_as_it_was(digits: Dataset) -> None:
    model = sg.models.build("mlp", (1, 8, 8), 10, hidden=(8,)).train()
    state = torch.get_rng_state()
    rho2(model, digits.take(10))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
