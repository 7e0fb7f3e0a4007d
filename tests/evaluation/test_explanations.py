"""Stability of explanations and gradient norms: against one sample at a time, computed directly."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

import nets
import steadygrad as sg
from oracles import attributions as maps_oracle
from oracles import intervals
from steadygrad import randomness
from steadygrad.attacks import FGSM, PGD, Attack, RandomNoise
from steadygrad.attributions import InputXGradient, Saliency
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.evaluation.explanations import explanation_stability, gradient_norms
from steadygrad.evaluation.robustness import Bench
from steadygrad.registry import label_of

COUNT = 12


def _model() -> Classifier:
    return Classifier(nets.build("conv"), mean=0.5, std=0.1, name="tiny")


def _data() -> Dataset:
    x = nets.inputs(COUNT)
    return Dataset(x, torch.arange(COUNT) % 3, ("a", "b", "c"), tuple(f"s{i}" for i in range(COUNT)))


def test_rows_equal_a_direct_computation_sample_by_sample() -> None:
    model, data, threat = _model(), _data(), sg.linf(0.1)
    attack = PGD(steps=4)
    rows = explanation_stability(Bench(data, seed=3), model, [Saliency()], attack, threat)
    seeds = randomness.sample_seeds(COUNT, randomness.fresh(3))
    ways: dict[str, Attack] = {"random noise": RandomNoise(), "attack on the prediction": attack}
    measures = {"top-10 % intersection": lambda a, b: maps_oracle.top_k_common(a, b, 2), "Kendall tau-b": None}
    assert {(r.under, r.measure) for r in rows} == {(u, m) for u in ways for m in measures}
    for row in rows:
        values = []
        for i in range(COUNT):
            x, y = data.batch([i])
            target = model(x).argmax(1)
            moved = ways[row.under].perturb(model, x, y, threat, generator=seeds[i : i + 1])
            pair = []
            for point in (x, moved):
                leaf = point.clone().requires_grad_()
                (slope,) = torch.autograd.grad(model(leaf)[0, target[0]], leaf)
                pair.append(slope.abs().sum(1).flatten().tolist())
            measure = measures[row.measure] or maps_oracle.tau_b
            values.append(measure(*pair))
        mean, low, high = intervals.student_interval(values)
        assert row.plain() == {
            "attribution": "Saliency",
            "under": row.under,
            "measure": row.measure,
            "mean": pytest.approx(mean, abs=1e-5),
            "low": pytest.approx(low, abs=1e-5),
            "high": pytest.approx(high, abs=1e-5),
            "count": COUNT,
        }


def test_at_most_count_samples_are_explained_in_any_batches() -> None:
    results = []
    for batch_size in (200, 5):
        bench = Bench(_data(), batch_size=batch_size)
        rows = explanation_stability(bench, _model(), [InputXGradient()], FGSM(), sg.linf(0.1), count=7)
        assert {r.similarity.count for r in rows} == {7}
        results.append([r.similarity.value for r in rows])
    assert results[0] == pytest.approx(results[1], abs=1e-5)


def test_two_settings_of_one_attribution_are_kept_apart() -> None:
    rows = explanation_stability(
        Bench(_data()), _model(), [Saliency(), Saliency(of="loss")], FGSM(), sg.linf(0.1), count=5
    )
    assert {r.attribution for r in rows} == {"Saliency", label_of(Saliency(of="loss"))}
    assert {r.similarity.count for r in rows} == {5}
    assert len(rows) == 8


def test_no_radius_means_no_change_of_the_explanation() -> None:
    rows = explanation_stability(Bench(_data()), _model(), [Saliency()], FGSM(), sg.linf(0.0))
    assert [r.similarity.value for r in rows] == pytest.approx([1.0] * len(rows))


@pytest.mark.parametrize("batch_size", [200, 5, 1])
def test_gradient_norms_equal_autograd_one_sample_at_a_time(batch_size: int) -> None:
    model, data = _model(), _data()
    own, following = gradient_norms(Bench(data, batch_size=batch_size), model)
    for shift, got in ((0, own), (1, following)):
        want = []
        for i in range(COUNT):
            x, y = data.batch([i])
            leaf = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(cross_entropy(model(leaf), (y + shift) % 3), leaf)
            want.append(float(slope.square().sum().sqrt()))
        assert got.tolist() == pytest.approx(want, rel=1e-4)
    assert not torch.allclose(own, following)


def test_the_model_is_left_as_it_was() -> None:
    model = _model().train()
    gradient_norms(Bench(_data()), model)
    explanation_stability(Bench(_data()), model, [Saliency()], FGSM(), sg.linf(0.1), count=3)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
