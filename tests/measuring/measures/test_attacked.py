"""Attacks: one record per sample, whatever the batches, against closed forms of linear models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import nets
import steadygrad as sg
from audit import victims
from audit.victims import Halfspace, features
from steadygrad.attacks import BIM, FGSM, PGD, RandomNoise, Standard
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import Failure, UsageError
from steadygrad.measuring.measures.attacked import RECORDS, Attacked
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.table import Table
from steadygrad.registry import label_of

THREAT = sg.linf(0.15)


def _model() -> Classifier:
    # Normalized, so that the tiny network uses all of its classes.
    return Classifier(nets.build(), mean=0.5, std=0.1, name="tiny")


def _data(count: int = 23) -> Dataset:
    x = nets.inputs(count)
    labels = _model()(x).argmax(1)
    assert len(labels.unique()) == 3
    labels[::6] = (labels[::6] + 1) % 3  # some clean mistakes
    return Dataset(x, labels, ("a", "b", "c"), tuple(f"sample/{i}" for i in range(count)))


def _same(a: Table, b: Table) -> None:
    """Equal but for the last digits that another batch shape rounds differently."""
    assert len(a)
    pd.testing.assert_frame_equal(
        a.frame.reset_index(drop=True), b.frame.reset_index(drop=True), check_exact=False, rtol=1e-4, atol=1e-6
    )


def test_one_row_per_sample_and_attack_in_the_order_of_the_data() -> None:
    data = _data()
    records = sg.evaluate(_model(), data, [FGSM(), RandomNoise()], THREAT, seed=5)
    assert list(records.columns) == list(RECORDS)
    assert records.frame["sample"].tolist() == [*data.ids, *data.ids]
    assert records.frame["label"].tolist() == data.labels.tolist() * 2
    assert records.frame["attack"].unique().tolist() == ["FGSM", "RandomNoise"]
    row = records.frame.iloc[0]
    assert (row["model"], row["source"], row["norm"], row["eps"]) == ("tiny", "tiny", "linf", 0.15)
    assert records.about["seed"] == 5


@pytest.mark.parametrize("attack", [PGD(steps=4, restarts=2), RandomNoise(draws=2), FGSM()], ids=label_of)
@pytest.mark.parametrize("batch_size", [1, 7, 22])
def test_results_do_not_depend_on_the_batch_size(attack: sg.attacks.Attack, batch_size: int) -> None:
    model, data = _model(), _data()
    _same(sg.evaluate(model, data, attack, THREAT, batch_size=batch_size), sg.evaluate(model, data, attack, THREAT))


@pytest.mark.parametrize("shard", [1, 5, 22])
def test_results_do_not_depend_on_the_shards(monkeypatch: pytest.MonkeyPatch, shard: int) -> None:
    model, data, measure = _model(), _data(), Attacked(PGD(steps=3), THREAT)
    whole = Runner({"tiny": model}, data).run(measure, "tiny")
    monkeypatch.setattr(Attacked, "shard", shard)
    runner = Runner({"tiny": model}, data, batch_size=4)
    _same(runner.run(measure, "tiny"), whole)
    assert runner.store.computed == -(-len(data) // shard)


@pytest.mark.parametrize("chunk", [1, 5, 22])
def test_results_do_not_depend_on_how_many_are_attacked_at_once(chunk: int) -> None:
    runner = Runner({"tiny": _model()}, _data())
    whole, parts = (runner.run(Attacked(PGD(steps=3), THREAT, chunk=c), "tiny") for c in (None, chunk))
    _same(parts, whole)
    assert runner.store.computed == 2


def test_a_sample_fares_the_same_in_any_order_and_any_part_of_the_data() -> None:
    model, data, attack = _model(), _data(), RandomNoise(draws=1)
    order = [7, 3, 20, 4]
    part = sg.evaluate(model, data.select(order), attack, THREAT)
    whole = sg.evaluate(model, data, attack, THREAT).frame.set_index("sample").loc[[data.ids[i] for i in order]]
    _same(part, Table({name: whole.reset_index()[name].to_numpy() for name in part.columns}))


def test_rows_choose_the_samples() -> None:
    runner = Runner({"m": _model()}, _data())
    measure = Attacked(FGSM(), THREAT)
    some = Runner(runner.models, runner.data).run(measure, "m", rows=[8, 2, 11])
    whole = runner.run(measure, "m")
    _same(some, whole.select([8, 2, 11]))
    assert some["sample"].tolist() == ["sample/8", "sample/2", "sample/11"]
    _same(runner.run(measure, "m", rows=[8, 2, 11]), some)
    assert runner.store.computed == 1  # of what is done on all, some are taken


def test_the_seed_decides_the_random_numbers() -> None:
    model, data = _model(), _data()
    runs = [sg.evaluate(model, data, RandomNoise(draws=1), THREAT, seed=s) for s in (0, 0, 1)]
    _same(runs[0], runs[1])
    moved = runs[0].frame["confidence"] != runs[2].frame["confidence"]
    fooled = runs[0].frame["success"] | runs[2].frame["success"]
    assert moved[fooled & (runs[0].frame["distance"] != 0)].all()
    assert moved.any()


def test_success_of_a_linear_model_is_as_in_closed_form() -> None:
    # The nearest wrong point of w.x = b lies |w.x - b| / |w|_1 away in linf, while the box does not cut it off.
    w, bias = [1.0, -2.0, 0.5], -0.2
    x = 0.3 + 0.4 * torch.rand(60, 3, generator=torch.Generator().manual_seed(3))
    score = x.double() @ torch.tensor(w, dtype=torch.float64) - bias
    data = features(x.tolist(), (score > 0).long().tolist())
    for eps in (0.02, 0.1, 0.25):
        records = sg.evaluate(Halfspace(w, bias), data, FGSM(), sg.linf(eps))
        want = (score.abs() / 3.5 < eps).numpy()
        assert records.frame["success"].tolist() == want.tolist()
        assert sg.robust_accuracy(records).value == pytest.approx(1 - want.mean())


def test_clean_mistakes_are_successes_at_distance_zero_and_failures_at_infinity() -> None:
    frame = sg.evaluate(_model(), _data(), BIM(steps=3), sg.linf(0.02)).frame
    mistake = frame["clean_prediction"] != frame["label"]
    assert mistake.sum() >= 4
    assert (frame.loc[mistake, "success"]).all()
    assert (frame.loc[mistake, "distance"] == 0).all()
    failed = frame[~frame["success"]]
    assert len(failed)
    assert np.isinf(failed["distance"]).all()
    assert (failed["prediction"] == failed["clean_prediction"]).all()
    assert (failed["confidence"] == failed["clean_confidence"]).all()
    fallen = frame[frame["success"] & ~mistake]
    assert len(fallen)
    assert (fallen["prediction"] != fallen["label"]).all()
    assert ((fallen["distance"] > 0) & (fallen["distance"] <= 0.02 * 1.001)).all()


def test_clean_columns_equal_a_softmax_in_float64() -> None:
    model, data = _model(), _data()
    frame = sg.evaluate(model, data, FGSM(), THREAT).frame
    best = model(data.images).double().softmax(1).max(1)
    assert frame["clean_prediction"].tolist() == best.indices.tolist()
    assert frame["clean_confidence"].to_numpy() == pytest.approx(best.values.detach().numpy(), rel=1e-6)


def test_rounded_success_equals_an_oracle_in_whole_numbers() -> None:
    model, data, attack, threat = _model(), _data(), FGSM(), sg.linf(0.05)
    frame = sg.evaluate(model, data, attack, threat).frame
    found = attack(model, *data.tensors(), threat).inputs
    levels = np.rint(found.double().numpy() * 255).astype(np.uint8)
    again = model(torch.from_numpy(levels.astype(np.float32) / 255)).argmax(1)
    assert frame["rounded_success"].tolist() == (again != data.labels).tolist()


def test_a_change_below_half_a_level_does_not_survive_rounding() -> None:
    data = features([[100 / 255]], [0])
    for bias, eps, survives in ((100.2 / 255, 0.4 / 255, False), (100.6 / 255, 1.0 / 255, True)):
        row = sg.evaluate(Halfspace([1.0], bias), data, FGSM(), sg.linf(eps)).frame.iloc[0]
        assert row["success"]
        assert bool(row["rounded_success"]) is survives


def test_passes_are_those_the_model_saw() -> None:
    data = _data()
    counting = victims.Counting(_model())
    frame = sg.evaluate(counting, data, PGD(steps=3), THREAT).frame
    looked = 4 * len(data)  # whether there is an answer; clean, found and rounded inputs for the columns
    judged_alone = int((frame["success"].sum()) == 1)
    tried = 2 + 2  # samples, before all else: whether the model takes them, and how many fit
    assert counting.rows == tried + frame["forwards"].sum() + looked + judged_alone


def test_models_are_left_as_they_were() -> None:
    model = nets.build("conv").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    sg.evaluate(model, _data(), PGD(steps=2), THREAT)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attacks": []}, "attacks is empty"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (
            {"threat": sg.linf(0.1, bounds=(0.4, 0.6))},
            r"threat has the bounds \(0.4, 0.6\), and .* within \(0.0, 1.0\)",
        ),
    ],
)
def test_wrong_calls_are_refused(arguments: dict[str, Any], message: str) -> None:
    call = {"attacks": [FGSM()], "threat": THREAT, **arguments}
    with pytest.raises(UsageError, match=message):
        sg.evaluate(_model(), _data(), **call)


class _Returns(nn.Module):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(x.flatten(1)[:, :3])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: x.softmax(1), UsageError, "returns probabilities"),
        (lambda x: x * float("nan"), Failure, "NaN or infinite logits"),
        (lambda x: x[:, 0], UsageError, r"must return logits \(N, K\)"),
        (lambda x: x[:1], UsageError, r"must return logits \(N, K\)"),
        (lambda x: (x, x), UsageError, "got tuple"),
        (lambda x: x[:, :2], UsageError, "has 2 classes, arrays has 3"),
    ],
    ids=["probabilities", "nan", "vector", "one row", "tuple", "too few classes"],
)
def test_models_that_return_no_logits_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sg.evaluate(_Returns(make), _data(), FGSM(), THREAT)


RADII = torch.tensor([0.05, 0.2, 0.15, 0.09, 0.11, 0.3, 0.01])
PER_SAMPLE = features([[0.5]] * 7, [0] * 7)


@pytest.mark.parametrize("batch_size", [1, 3, 200])
@pytest.mark.parametrize("shard", [2, 200])
def test_a_radius_per_sample_follows_its_sample(monkeypatch: pytest.MonkeyPatch, batch_size: int, shard: int) -> None:
    monkeypatch.setattr(Attacked, "shard", shard)
    threat = replace(sg.linf(), eps=RADII)
    records = sg.evaluate(Halfspace([1.0], 0.6), PER_SAMPLE, FGSM(), threat, batch_size=batch_size)
    assert records.frame["success"].tolist() == (RADII > 0.1).tolist()
    assert records.frame["eps"].tolist() == pytest.approx(RADII.tolist())
    with pytest.raises(UsageError, match="records of one eps"):
        sg.robust_accuracy(records)


@pytest.mark.parametrize("count", [3, 8])
def test_radii_for_another_number_of_samples_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"eps has {count} entries for 7 samples"):
        sg.evaluate(Halfspace([1.0], 0.6), PER_SAMPLE, FGSM(), sg.linf(torch.full((count,), 0.1)))


def test_who_broke_a_sample_is_written_down() -> None:
    data = features([[0.5], [0.5], [0.9]], [0, 0, 0])
    threat = replace(sg.linf(), eps=torch.tensor([0.05, 0.2, 0.1]))
    frame = sg.evaluate(Halfspace([1.0], 0.6), data, PGD(steps=3), threat).frame
    assert frame["success"].tolist() == [False, True, True]
    assert frame["broken_by"].tolist() == ["", "PGD, 3 steps", ""]  # the last one is a clean mistake


def test_a_suite_names_the_member_that_broke_a_sample() -> None:
    suite = Standard(steps=5, queries=200, targets=2)
    data, stairs = _data(), victims.Quantized(_model(), levels=12)
    for model in (_model(), stairs):
        frame = sg.evaluate(model, data, suite, THREAT).frame
        x, y = data.tensors()
        seeds = Runner({}, data).seeds(Attacked(suite, THREAT).draws_as, data.ids)
        found = suite(model, x, y, THREAT, generator=seeds)
        names = [*(name for name, _ in suite.members()), ""]
        assert frame["broken_by"].tolist() == [names[number] for number in found.found_by.tolist()]
        assert frame["success"].tolist() == found.success.tolist()
    # Behind rounded inputs there is no gradient: the member that needs none breaks what falls.
    assert set(frame["broken_by"]) - {""} >= {"square"}


def test_a_random_model_gives_the_same_records_with_the_same_seed() -> None:
    noisy, data = victims.Noisy(_model(), 3.0), _data()
    first = sg.evaluate(noisy, data, PGD(steps=3), THREAT, seed=1)
    torch.randn(5)  # somebody else draws
    pd.testing.assert_frame_equal(sg.evaluate(noisy, data, PGD(steps=3), THREAT, seed=1).frame, first.frame)
    other = sg.evaluate(noisy, data, PGD(steps=3), THREAT, seed=2).frame
    assert (other["clean_confidence"] != first.frame["clean_confidence"]).any()


def test_a_mistake_of_the_clean_column_is_a_success_whatever_the_attack_saw() -> None:
    # A model whose answer depends on its batch may be right where the attack looks, and wrong in the table.
    data = _data()
    for seed in range(5):
        frame = sg.evaluate(victims.BatchCentered(nets.build(seed=seed)), data, BIM(steps=2), sg.linf(0.01)).frame
        mistake = frame["clean_prediction"] != frame["label"]
        assert frame.loc[mistake, "success"].all()
        assert (frame.loc[mistake, "distance"] == 0).all()
        assert (frame.loc[mistake, "broken_by"] == "").all()
