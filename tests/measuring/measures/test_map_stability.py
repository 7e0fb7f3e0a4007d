"""Stability of maps, against one sample at a time, computed directly."""

from __future__ import annotations

import pytest
import torch

import nets
import steadygrad as sg
from gates import counted
from oracles import attributions as maps_oracle
from oracles import intervals
from steadygrad.attacks import FGSM, PGD, Attack, RandomNoise
from steadygrad.attributions import InputXGradient, Saliency
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.measuring.measures.map_stability import SIMILARITY_OF_MAPS, WAYS, MapStability
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.statistics import mean

COUNT = 12


def _model() -> Classifier:
    return Classifier(nets.build("conv"), mean=0.5, std=0.1, name="tiny")


def _data() -> Dataset:
    x = nets.inputs(COUNT)
    return Dataset(x, torch.arange(COUNT) % 3, ("a", "b", "c"), tuple(f"s{i}" for i in range(COUNT)))


def _runner(batch_size: int = 200, seed: int = 0) -> Runner:
    return Runner({"m": _model()}, _data(), seed=seed, batch_size=batch_size)


def test_columns_equal_a_direct_computation_sample_by_sample() -> None:
    runner, threat, attack = _runner(seed=3), sg.linf(0.1), PGD(steps=4)
    model, data = _model(), _data()
    measure = MapStability((Saliency(),), attack, threat)
    table = runner.run(measure, "m")
    seeds = runner.seeds(measure.draws_as, data.ids)
    ways: dict[str, Attack] = {"random noise": RandomNoise(), "attack on the prediction": attack}
    measures = {"top-10 % intersection": lambda a, b: maps_oracle.top_k_common(a, b, 2), "Kendall tau-b": None}
    assert (tuple(ways), set(measures)) == (WAYS, set(SIMILARITY_OF_MAPS))
    assert set(table.columns) == {"sample", "label"} | {f"Saliency: {w}: {m}" for w in ways for m in measures}
    for way, method in ways.items():
        for name, common in measures.items():
            values = []
            for i in range(COUNT):
                x, y = data.batch([i])
                target = model(x).argmax(1)
                moved = method.perturb(model, x, y, threat, generator=seeds[i : i + 1])
                pair = []
                for point in (x, moved):
                    leaf = point.clone().requires_grad_()
                    (slope,) = torch.autograd.grad(model(leaf)[0, target[0]], leaf)
                    pair.append(slope.abs().sum(1).flatten().tolist())
                values.append((common or maps_oracle.tau_b)(*pair))
            column = table[f"Saliency: {way}: {name}"]
            assert column.tolist() == pytest.approx(values, abs=1e-5)
            found = mean(column)
            assert (found.value, found.low, found.high) == pytest.approx(intervals.student_interval(values), abs=1e-5)


def test_any_rows_in_any_batches() -> None:
    measure = MapStability((InputXGradient(),), FGSM(), sg.linf(0.1))
    tables = [_runner(size).run(measure, "m", rows=range(7)) for size in (200, 5)]
    whole = _runner().run(measure, "m")
    for name in set(whole.columns) - {"sample", "label"}:
        assert len(tables[0]) == 7
        assert tables[0][name].tolist() == pytest.approx(tables[1][name].tolist(), abs=1e-5)
        assert tables[0][name].tolist() == pytest.approx(whole[name][:7].tolist(), abs=1e-5)


def test_attributions_share_the_points_and_are_kept_apart() -> None:
    both = (Saliency(), Saliency(of="loss"))
    model = _model()
    with counted(model) as passes:
        together = Runner({"m": model}, _data()).run(MapStability(both, PGD(steps=4), sg.linf(0.1)), "m", rows=range(5))
    shared = passes["samples_back"]
    with counted(model) as passes:
        alone = [
            Runner({"m": model}, _data()).run(MapStability((a,), PGD(steps=4), sg.linf(0.1)), "m", rows=range(5))
            for a in both
        ]
    assert shared == passes["samples_back"] - 5 * 4
    for table in alone:
        for name in set(table.columns) - {"sample", "label"}:
            assert together[name].tolist() == table[name].tolist()
    assert len(together.columns) == sum(len(table.columns) for table in alone) - 2


def test_no_radius_means_no_change_of_the_explanation() -> None:
    table = _runner().run(MapStability((Saliency(),), FGSM(), sg.linf(0.0)), "m")
    for name in set(table.columns) - {"sample", "label"}:
        assert table[name].tolist() == pytest.approx([1.0] * COUNT)


def test_the_model_is_left_as_it_was() -> None:
    model = _model().train()
    Runner({"m": model}, _data()).run(MapStability((Saliency(),), FGSM(), sg.linf(0.1)), "m", rows=range(3))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
