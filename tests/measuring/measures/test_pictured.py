"""Pictures: inputs as they are, maps of both, and one sample pushed towards every class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nets
import steadygrad as sg
from audit.victims import Halfspace, features
from steadygrad.attacks import PGD
from steadygrad.attributions import Saliency
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.measuring.measures.pictured import EveryTarget, Pictured
from steadygrad.measuring.runner import Runner

SHAPE = (3, 4, 4)


def _model() -> Classifier:
    return Classifier(nets.build("mlp", shape=SHAPE, seed=2), mean=0.5, std=0.1, name="tiny")


def _data(count: int = 15) -> Dataset:
    x = nets.inputs(count, shape=SHAPE)
    return Dataset(x, _model()(x).argmax(1), ("ant", "bee", "cat"), tuple(f"s{i}" for i in range(count)))


@pytest.mark.parametrize("batch_size", [200, 2])
def test_the_given_inputs_are_shown_with_the_maps_of_the_clean_prediction(batch_size: int) -> None:
    data, model, rows = _data(), _model(), [4, 0, 9]
    moved = (data.batch(rows)[0] + 0.05).clamp(0, 1)
    measure = Pictured((Saliency(), Saliency(of="loss")))
    runner = Runner({"m": model}, data, batch_size=batch_size)
    table = runner.run(measure, "m", rows=rows, given={"input": moved.numpy()})
    np.testing.assert_array_equal(table["clean"], data.batch(rows)[0].numpy())
    np.testing.assert_array_equal(table["adversarial"], moved.numpy())
    target = model(data.batch(rows)[0]).argmax(1)
    for kind in ("clean", "adversarial"):
        x = torch.from_numpy(table[kind].copy()).requires_grad_()
        (slope,) = torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)
        np.testing.assert_allclose(table[f"map_{kind}_0"], slope.abs().sum(1).numpy(), rtol=1e-4, atol=1e-6)
        assert table[f"map_{kind}_1"].shape == (3, 4, 4)
    assert not np.allclose(table["map_clean_0"], table["map_clean_1"])


def test_feature_vectors_become_one_row_of_pixels() -> None:
    data = features([[0.2, 0.4, 0.6], [0.8, 0.1, 0.3]], [0, 1])
    runner = Runner({"m": Halfspace([1.0, 1.0, 1.0], 1.25)}, data)
    table = runner.run(Pictured((Saliency(),)), "m", given={"input": data.tensors()[0].numpy()})
    assert table["clean"].shape == (2, 1, 1, 3)
    assert table["map_clean_0"].shape == (2, 1, 3)


@pytest.mark.parametrize("mistakes", [False, True])
def test_every_class_is_a_target_and_the_diagonal_is_the_original(mistakes: bool) -> None:
    data, model = _data(), _model()
    if mistakes:
        data = Dataset(data.batch(range(15))[0], (data.labels + 1) % 3, data.classes, data.ids)
    rows = [data.labels.tolist().index(c) for c in range(3)]
    measure = EveryTarget(PGD(steps=5), sg.linf(0.2), 3)
    tables = [Runner({"m": model}, data, batch_size=size).run(measure, "m", rows=rows) for size in (200, 1)]
    np.testing.assert_allclose(tables[0]["pictures"], tables[1]["pictures"], atol=1e-5)
    pictures, success = tables[0]["pictures"], tables[0]["success"]
    assert pictures.shape == (3, 3, *SHAPE)
    said = model(torch.from_numpy(pictures.reshape(9, *SHAPE))).argmax(1).view(3, 3).tolist()
    assert success[~np.eye(3, dtype=bool)].any()
    for r in range(3):
        original = data.batch([rows[r]])[0][0].numpy()
        for c in range(3):
            if r == c or not success[r][c]:
                np.testing.assert_array_equal(pictures[r, c], original)
            else:
                assert said[r][c] == c
                assert np.abs(pictures[r, c] - original).max() <= 0.2 + 1e-6


def test_pictures_are_of_the_attack_that_draws_as_in_its_records() -> None:
    data, model, attack, threat = _data(), _model(), PGD(steps=5), sg.linf(0.1)
    runner = Runner({"m": model}, data)
    kept = runner.run(Attacked(attack, threat), "m", keep=[0, 3]).kept("input")
    x, y = data.batch([0, 3])
    seeds = runner.seeds(Attacked(attack, threat).draws_as, [data.ids[i] for i in (0, 3)])
    found = attack(model, x, y, threat, generator=seeds)
    np.testing.assert_allclose(kept.values, found.inputs.numpy(), atol=1e-6)
    table = runner.run(Pictured((Saliency(),)), "m", rows=[0, 3], given={"input": kept.values})
    np.testing.assert_array_equal(table["adversarial"], kept.values)
