"""The pictures: which samples, which arrays, which captions, and that they show the inputs that were counted."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

import nets
import steadygrad as sg
from steadygrad.attacks import PGD, Attack
from steadygrad.attributions import Saliency
from steadygrad.audit.gallery import candidates, grid, pictures, spread, steps
from steadygrad.audit.records import records
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.measuring.measures.along_radius import AlongRadius
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.table import Table
from steadygrad.registry import label_of

SHAPE = (3, 4, 4)
ATTACK = PGD(steps=5)
MAPS = (Saliency(), Saliency(of="loss"))


def _model() -> Classifier:
    return Classifier(nets.build("mlp", shape=SHAPE, seed=2), mean=0.5, std=0.1, name="tiny")


def _data(count: int = 15, mistakes: bool = False) -> Dataset:
    x = nets.inputs(count, shape=SHAPE)
    labels = _model()(x).argmax(1)
    assert len(labels.unique()) == 3
    if mistakes:
        labels = (labels + 1) % 3
    return Dataset(x, labels, ("ant", "bee", "cat"), tuple(f"s{i}" for i in range(count)))


def _shown(
    data: Dataset, keep: list[int], count: int, eps: float = 0.1, attack: Attack = ATTACK
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray], Table]:
    """Captions and arrays of the model named third, and the table that they are of."""
    runner, measure = Runner({"tiny": _model()}, data), Attacked(attack, sg.linf(eps))
    table = runner.run(measure, "tiny", keep=keep)
    return *pictures(runner, "tiny", 2, table, attack, MAPS, data.classes, count), table


def test_arrays_hold_the_inputs_that_were_counted_and_their_maps() -> None:
    data, model = _data(), _model()
    captions, arrays, table = _shown(data, [0, 4, 9], 3)
    rows = [caption["index"] for caption in captions]
    assert sorted(rows) == [0, 4, 9]
    assert set(arrays) == {"clean_2", "adversarial_2"} | {
        f"map_{kind}_2_{a}" for kind in ("clean", "adversarial") for a in (0, 1)
    }
    assert arrays["clean_2"].shape == arrays["adversarial_2"].shape == (3, *SHAPE)
    assert all(a.dtype == np.float32 for a in arrays.values())
    np.testing.assert_array_equal(arrays["clean_2"], data.batch(rows)[0].numpy())
    assert np.abs(arrays["adversarial_2"] - arrays["clean_2"]).max() <= 0.1 + 1e-6
    kept = dict(zip(table.kept("input").rows.tolist(), table.kept("input").values))
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(arrays["adversarial_2"][place], kept[row])
    for kind in ("clean", "adversarial"):
        x = torch.from_numpy(arrays[f"{kind}_2"].copy()).requires_grad_()
        target = model(torch.from_numpy(arrays["clean_2"])).argmax(1)
        (slope,) = torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)
        np.testing.assert_allclose(arrays[f"map_{kind}_2_0"], slope.abs().sum(1).numpy(), rtol=1e-4, atol=1e-6)
    assert not np.allclose(arrays["map_clean_2_0"], arrays["map_clean_2_1"])


@pytest.mark.parametrize("mistakes", [False, True])
def test_captions_are_those_of_the_record_and_of_the_picture(mistakes: bool) -> None:
    data, model = _data(mistakes=mistakes), _model()
    captions, arrays, table = _shown(data, list(range(15)), 8, eps=0.06)
    assert json.loads(json.dumps(captions, allow_nan=False)) == captions
    frame = records(table, Attacked(PGD(steps=5), sg.linf(0.06)), "tiny").frame.set_index("sample")
    fooled = 0
    for place, caption in enumerate(captions):
        clean, found = (torch.from_numpy(arrays[f"{k}_2"][place : place + 1]) for k in ("clean", "adversarial"))
        row = frame.loc[caption["id"]]
        assert data.ids[caption["index"]] == caption["id"]
        assert caption["label"] == data.classes[int(data.labels[caption["index"]])]
        assert caption["attack"] == "PGD, 5 steps"
        for kind, x, name in (("clean", clean, "clean_"), ("adversarial", found, "")):
            best = model(x).detach().softmax(1).max(1)
            assert (
                caption[f"{kind}_prediction"]
                == data.classes[int(best.indices)]
                == data.classes[row[f"{name}prediction"]]
            )
            assert caption[f"{kind}_confidence"] == pytest.approx(best.values.item(), rel=1e-4)
            assert caption[f"{kind}_confidence"] == row[f"{name}confidence"]
        hit = caption["adversarial_prediction"] != caption["label"]
        assert hit == row["success"]
        assert caption["distance"] == (pytest.approx(float((found - clean).abs().max()), rel=1e-5) if hit else None)
        fooled += hit
    assert fooled > 0
    assert mistakes or fooled < 8 or not frame["success"].all()


def test_steps_are_where_the_attack_ends_at_each_radius() -> None:
    data, model = _data(), _model()
    runner, measure = Runner({"tiny": model}, data, seed=5), AlongRadius(ATTACK, sg.linf(0.1), MAPS, shares=(0.5, 2.0))
    captions: list[dict[str, Any]] = [{"index": 3}, {"index": 11}]
    arrays = steps(runner, "tiny", 2, measure, captions, data.classes)
    assert {name: a.shape for name, a in arrays.items()} == {
        "along_2": (2, 2, *SHAPE), "along_map_2_0": (2, 2, 4, 4), "along_map_2_1": (2, 2, 4, 4)
    }  # fmt: skip
    for row, place in enumerate((3, 11)):
        x, y = data.batch([place])
        seeds = runner.seeds(measure.draws_as, [data.ids[place]])
        for r, eps in enumerate((0.05, 0.2)):
            points = ATTACK.perturb(model, x, y, sg.linf(eps), generator=seeds)
            np.testing.assert_allclose(arrays["along_2"][row, r], points[0].numpy(), atol=1e-6)
            sure = model(points).detach().softmax(1).max(1)
            step = captions[row]["steps"][r]
            assert (step["eps"], step["prediction"]) == (eps, data.classes[int(sure.indices)])
            assert step["confidence"] == pytest.approx(sure.values.item(), rel=1e-4)
            for a, attribution in enumerate(MAPS):
                maps = attribution(model, points, model(x).argmax(1)).abs().sum(1)[0]
                np.testing.assert_allclose(arrays[f"along_map_2_{a}"][row, r], maps.numpy(), rtol=1e-4, atol=1e-6)


def test_what_cannot_be_computed_at_a_radius_leaves_no_steps() -> None:
    class NoEnd(PGD):
        def perturb(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            raise sg.UsageError("not at this radius")

    captions: list[dict[str, Any]] = [{"index": 0}]
    runner = Runner({"tiny": _model()}, _data())
    assert steps(runner, "tiny", 0, AlongRadius(NoEnd(), sg.linf(0.1)), captions, "abc") == {}
    assert captions == [{"index": 0}]
    assert steps(runner, "tiny", 0, AlongRadius(ATTACK, sg.linf(0.1)), [], "abc") == {}


def test_samples_that_the_attack_turned_come_first() -> None:
    data = _data()
    captions, _, table = _shown(data, list(range(15)), 3, eps=0.03)
    turned = table["success"] & (table["clean_prediction"] == table["label"])
    assert 0 < turned.sum() < 15
    first = captions[: min(3, len(set(table["label"][turned].tolist())))]
    assert all(turned[caption["index"]] for caption in first)


def test_the_grid_attacks_one_sample_of_each_class_towards_every_other() -> None:
    data, model = _data(), _model()
    labels = data.labels.tolist()
    about, arrays = grid(Runner({"tiny": model}, data), "tiny", labels, PGD(steps=5), sg.linf(0.2), data.classes)
    assert about is not None
    drawn = arrays["grid"]
    assert (about["model"], about["attack"], about["classes"]) == (
        "tiny", f"{label_of(PGD(steps=5))}, targeted", ["ant", "bee", "cat"]
    )  # fmt: skip
    assert drawn.shape == (3, 3, *SHAPE)
    said = model(torch.from_numpy(drawn.reshape(9, *SHAPE).copy())).argmax(1).view(3, 3).tolist()
    assert True in [flag for row in about["success"] for flag in row]
    for r in range(3):
        original = data.batch([labels.index(r)])[0][0].numpy()
        for c in range(3):
            assert (about["success"][r][c] is None) == (r == c)
            if r == c or not about["success"][r][c]:
                np.testing.assert_array_equal(drawn[r, c], original)
            else:
                assert said[r][c] == c
                assert np.abs(drawn[r, c] - original).max() <= 0.2 + 1e-6


def test_there_is_no_grid_without_a_sample_of_every_class() -> None:
    data = _data()
    data = data.select(data.labels != 1)
    runner = Runner({"tiny": _model()}, data)
    assert grid(runner, "tiny", data.labels.tolist(), PGD(steps=5), sg.linf(0.1), data.classes) == (None, {})
    assert runner.store.computed == 0


def test_spread_takes_the_classes_in_turn_and_preferred_samples_first() -> None:
    labels = [0, 0, 0, 0, 1, 1, 2, 2]
    chosen = spread(labels, 5, {3: True, 5: True})
    assert chosen[:2] == [3, 5]
    assert len(set(chosen)) == 5
    assert Counter(labels[i] for i in chosen) == {0: 2, 1: 2, 2: 1}
    assert {labels[i] for i in chosen[:3]} == {0, 1, 2}
    assert sorted(spread(labels, 100, {})) == list(range(8))
    assert spread(labels, 0, {}) == []


def test_candidates_are_more_than_are_shown_and_of_all_classes() -> None:
    labels = [0] * 40 + [1] * 3 + [2] * 40
    chosen = candidates(labels, 3)
    assert len(chosen) == len(set(chosen)) == 15
    assert chosen == sorted(chosen)
    assert {labels[i] for i in chosen} == {0, 1, 2}
    assert [i for i in chosen if labels[i] == 1] == [40, 41, 42]
