"""The pictures: which samples, which arrays, which captions."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

import nets
import steadygrad as sg
from evaluation.victims import Halfspace, features
from steadygrad import randomness
from steadygrad.attacks import FGSM, PGD
from steadygrad.attributions import Saliency
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.evaluation.gallery import Gallery, spread
from steadygrad.evaluation.robustness import Bench
from steadygrad.registry import label_of

SHAPE = (3, 4, 4)


def _model(shape: tuple[int, int, int] = SHAPE) -> Classifier:
    return Classifier(nets.build("mlp", shape=shape, seed=2), mean=0.5, std=0.1, name="tiny")


def _data(count: int = 15, mistakes: bool = True) -> Dataset:
    x = nets.inputs(count, shape=SHAPE)
    labels = _model()(x).argmax(1)
    assert len(labels.unique()) == 3
    if mistakes:
        labels = (labels + 1) % 3
    return Dataset(x, labels, ("ant", "bee", "cat"), tuple(f"s{i}" for i in range(count)))


def _gallery(data: Dataset, eps: float = 0.1) -> Gallery:
    return Gallery(Bench(data), PGD(steps=5), sg.linf(eps), (Saliency(), Saliency(of="loss")))


def test_arrays_hold_the_inputs_and_their_maps() -> None:
    data, model = _data(mistakes=False), _model()
    gallery = _gallery(data)
    rows = [4, 0, 9]
    gallery.add(2, "tiny", model, rows)
    arrays = gallery.arrays
    assert set(arrays) == {"clean_2", "adversarial_2"} | {
        f"map_{kind}_2_{a}" for kind in ("clean", "adversarial") for a in (0, 1)
    }
    assert arrays["clean_2"].shape == arrays["adversarial_2"].shape == (3, *SHAPE)
    assert all(a.dtype == np.float32 for a in arrays.values())
    np.testing.assert_array_equal(arrays["clean_2"], data.images[rows].numpy())
    assert np.abs(arrays["adversarial_2"] - arrays["clean_2"]).max() <= 0.1 + 1e-6
    for kind in ("clean", "adversarial"):
        x = torch.from_numpy(arrays[f"{kind}_2"]).requires_grad_()
        target = model(torch.from_numpy(arrays["clean_2"])).argmax(1)
        (slope,) = torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)
        np.testing.assert_allclose(arrays[f"map_{kind}_2_0"], slope.abs().sum(1).numpy(), rtol=1e-4, atol=1e-6)
    assert not np.allclose(arrays["map_clean_2_0"], arrays["map_clean_2_1"])


def test_captions_say_what_the_model_says() -> None:
    data, model = _data(mistakes=False), _model()
    gallery = _gallery(data)
    gallery.add(0, "tiny", model, [1, 5, 8, 11])
    plain = gallery.plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["attributions"] == ["Saliency", label_of(Saliency(of="loss"))]
    fooled = 0
    for i, caption in enumerate(plain["models"]["tiny"]):
        clean, found = (torch.from_numpy(gallery.arrays[f"{k}_0"][i : i + 1]) for k in ("clean", "adversarial"))
        assert caption["index"] == i
        assert caption["id"] == ("s1", "s5", "s8", "s11")[i]
        assert caption["label"] == data.classes[int(data.labels[(1, 5, 8, 11)[i]])]
        for kind, x in (("clean", clean), ("adversarial", found)):
            best = model(x).detach().softmax(1).max(1)
            assert caption[f"{kind}_prediction"] == data.classes[int(best.indices)]
            assert caption[f"{kind}_confidence"] == pytest.approx(best.values.item(), rel=1e-4)
        hit = caption["adversarial_prediction"] != caption["label"]
        assert caption["distance"] == (pytest.approx(float((found - clean).abs().max()), rel=1e-5) if hit else None)
        fooled += hit
    assert fooled > 0


def test_the_grid_attacks_one_sample_of_each_class_towards_every_other() -> None:
    data, model = _data(mistakes=False), _model()
    gallery = _gallery(data, eps=0.2)
    gallery.add_grid("tiny", model)
    grid = gallery.grid
    assert grid is not None
    assert (grid["model"], grid["attack"], grid["classes"]) == (
        "tiny",
        f"{label_of(PGD(steps=5))}, targeted",
        ["ant", "bee", "cat"],
    )
    pictures = gallery.arrays["grid"]
    assert pictures.shape == (3, 3, *SHAPE)
    firsts = [data.labels.tolist().index(c) for c in range(3)]
    said = model(torch.from_numpy(pictures.reshape(9, *SHAPE))).argmax(1).view(3, 3).tolist()
    flags = [flag for row in grid["success"] for flag in row]
    assert True in flags
    for r in range(3):
        original = data.images[firsts[r]].numpy()
        for c in range(3):
            assert (grid["success"][r][c] is None) == (r == c)
            if r == c or not grid["success"][r][c]:
                np.testing.assert_array_equal(pictures[r, c], original)
            else:
                assert said[r][c] == c
                assert np.abs(pictures[r, c] - original).max() <= 0.2 + 1e-6


def test_the_diagonal_of_the_grid_is_the_original_even_of_a_clean_mistake() -> None:
    data, model = _data(mistakes=True), _model()  # every sample is a mistake
    gallery = _gallery(data, eps=0.3)
    gallery.add_grid("tiny", model)
    for c in range(3):
        original = data.images[data.labels.tolist().index(c)].numpy()
        np.testing.assert_array_equal(gallery.arrays["grid"][c, c], original)


def test_there_is_no_grid_without_a_sample_of_every_class() -> None:
    data = _data()
    gallery = _gallery(data.select(data.labels != 1))
    gallery.add_grid("tiny", _model())
    assert gallery.grid is None
    assert gallery.plain()["grid"] is None
    assert "grid" not in gallery.arrays


def test_feature_vectors_become_one_row_of_pixels() -> None:
    data = features([[0.2, 0.4, 0.6], [0.8, 0.1, 0.3]], [0, 1])
    gallery = Gallery(Bench(data), FGSM(), sg.linf(0.1), (Saliency(),))
    gallery.add(0, "m", Halfspace([1.0, 1.0, 1.0], 1.25), [0, 1])
    assert gallery.arrays["clean_0"].shape == (2, 1, 1, 3)
    assert gallery.arrays["map_clean_0_0"].shape == (2, 1, 3)


def test_spread_takes_the_classes_in_turn_and_preferred_samples_first() -> None:
    labels = [0, 0, 0, 0, 1, 1, 2, 2]
    data = features([[0.1]] * 8, labels, classes=3)
    chosen = spread(data, 5, {3: True, 5: True})
    assert chosen[:2] == [3, 5]
    assert len(set(chosen)) == 5
    counts = Counter(labels[i] for i in chosen)
    assert counts == {0: 2, 1: 2, 2: 1}
    assert {labels[i] for i in chosen[:3]} == {0, 1, 2}
    assert sorted(spread(data, 100, {})) == list(range(8))
    assert spread(data, 0, {}) == []


def test_the_same_seeds_give_the_same_pictures() -> None:
    data, model = _data(), _model()
    pair = [_gallery(data), _gallery(data)]
    for gallery in pair:
        gallery.add(0, "tiny", model, [0, 3])
    np.testing.assert_array_equal(pair[0].arrays["adversarial_0"], pair[1].arrays["adversarial_0"])
    x, y = data.batch([0, 3])
    found = PGD(steps=5)(model, x, y, sg.linf(0.1), generator=randomness.fresh(0))
    np.testing.assert_array_equal(pair[0].arrays["adversarial_0"], found.inputs.numpy())
