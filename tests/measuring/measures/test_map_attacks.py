"""Attacks on maps: numbers from their definitions, bounds that hold, refusals named, work that is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nets
import steadygrad as sg
from oracles import attributions as maps_oracle
from steadygrad.attacks import Expectation, worst_similarity
from steadygrad.attributions import Attribution, IntegratedGradients, Saliency, SmoothGrad
from steadygrad.attributions.faithfulness import faithfulness
from steadygrad.bounds import CertifiedDeviation, LinearizedDeviation
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.measuring.measure import Batch
from steadygrad.measuring.measures.map_attacks import MapAttacks
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.store import Store

COUNT = 5
BETA = 20.0
SEEDS = torch.arange(COUNT)
Arrays = dict[str, np.ndarray[Any, Any]]


def _model(activation: type[nn.Module] = nn.Softplus, kind: str = "conv") -> Classifier:
    return Classifier(nets.build(kind, activation=activation), mean=0.5, std=0.2, name="tiny")


def _data(count: int = COUNT) -> Dataset:
    x = nets.inputs(count)
    return Dataset(x, torch.arange(count) % 3, ("a", "b", "c"), tuple(f"s{i}" for i in range(count)))


def _measure(threat: sg.Threat, attribution: Attribution | None = None) -> MapAttacks:
    return MapAttacks(attribution or Saliency(), threat, steps=4, restarts=1, draws=2, beta=BETA)


def _measured(model: nn.Module, threat: sg.Threat, attribution: Attribution | None = None) -> Arrays:
    data = _data()
    batch = Batch(*data.tensors(), data.ids, SEEDS, {"certify": np.ones(COUNT, dtype=bool)}, {})
    return {name: np.asarray(values) for name, values in _measure(threat, attribution)([model], batch).items()}


def _map(model: nn.Module, x: Tensor, target: int) -> Tensor:
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf[None])[0, target], leaf)
    return slope.double().flatten()


def _far(before: Tensor, after: Tensor) -> dict[str, float]:
    angle = float(before @ after / (before.norm() * after.norm()))
    return {"euclidean": float((after - before).norm() / before.norm()), "cosine": 1 - angle}


def test_deviations_and_excesses_are_those_of_the_points_found() -> None:
    model, threat = _model(), sg.linf(0.2)
    columns = _measured(model, threat)
    x, _ = _data().tensors()
    suite = _measure(threat).suite(True)
    found = worst_similarity(model, x, None, threat, Saliency(), attacks=suite, generator=SEEDS)
    bounds = {
        (kind, d): method(model, x, found.results[0].target, threat, generator=SEEDS)
        for d in ("euclidean", "cosine")
        for kind, method in (
            ("linearized", LinearizedDeviation(Saliency(), d)),  # type: ignore[arg-type]
            ("certified", CertifiedDeviation(Saliency(), d, steps=0)),  # type: ignore[arg-type]
        )
    }
    exceeded = 0
    for n in range(COUNT):
        target = int(model(x[n : n + 1]).argmax())
        before = _map(model, x[n], target)
        points = [p.inputs[n] for r in found.results for p in (r, r.noise) if p is not None and bool(p.moved[n])]
        points += [b.inputs[n] for (kind, d), b in bounds.items() if (kind, d) != ("certified", "cosine")]
        points = [p for p in points if int(model(p[None]).argmax()) == target and not torch.equal(p, x[n])]
        far = [_far(before, _map(model, p, target)) for p in points]
        assert columns["points"][n] == len(points)
        for d in ("euclidean", "cosine"):
            unit = float(before.norm()) if d == "euclidean" else 1.0
            assert columns[f"deviation_{d}_attack"][n] == pytest.approx(max(f[d] for f in far), rel=1e-3)
            for kind in ("linearized", "certified"):
                upper = float(bounds[kind, d].upper[n]) / unit
                assert columns[f"deviation_{d}_{kind}"][n] == pytest.approx(upper, rel=1e-3)
                over = sum(f[d] > upper * (1 + 1e-3) for f in far)
                assert columns[f"over_{d}_{kind}"][n] == over
                exceeded += over
        assert columns["confidence"][n] == pytest.approx(float(model(x[n : n + 1]).detach().softmax(1).max()))
    for name in ("top_k_intersection", "kendall", "cosine"):
        np.testing.assert_allclose(columns[f"similarity_{name}_attack"], found.worst[name].numpy(), rtol=1e-5)
        np.testing.assert_allclose(columns[f"similarity_{name}_noise"], found.noise[name].numpy(), rtol=1e-5)
    assert exceeded > 0  # linearized ones at this radius: the count is not always zero
    assert all(columns[f"over_{d}_certified"].sum() == 0 for d in ("euclidean", "cosine"))


@pytest.mark.parametrize("threat", [sg.linf(0.002), sg.l2(0.004)], ids=str)
@pytest.mark.parametrize("attribution", [Saliency(), IntegratedGradients(3)], ids=str)
def test_what_is_certain_stays_in_the_top_of_every_map_found(threat: sg.Threat, attribution: Attribution) -> None:
    columns = _measured(_model(), threat, attribution)
    columns |= {name: columns[name].reshape(COUNT, -1) for name in ("marks", "map_clean", "map_shown")}
    assert columns["certain"].sum() > 0
    np.testing.assert_array_equal((columns["marks"] == 4).sum(1), columns["certain"])
    for n in range(COUNT):
        before, after = (columns[f"map_{when}"][n] for when in ("clean", "shown"))
        tops = [set(np.argsort(-m, kind="stable")[:2].tolist()) for m in (before, after)]
        marks = columns["marks"][n]
        for mark, places in ((2, tops[0] - tops[1]), (1, tops[1] - tops[0])):
            assert set(np.flatnonzero(marks == mark).tolist()) == places
        assert set(np.flatnonzero(marks >= 3).tolist()) == tops[0] & tops[1]
        assert columns["similarity_top_k_intersection_attack"][n] == len(tops[0] & tops[1]) / 2
        assert columns["similarity_top_k_intersection_attack"][n] * 2 >= columns["certain"][n]
    assert (columns["deviation_euclidean_attack"] <= columns["deviation_euclidean_certified"]).all()


def test_rectifiers_are_smoothed_and_the_models_own_maps_stand_beside() -> None:
    model, threat = _model(nn.ReLU), sg.linf(0.2)
    columns = _measured(model, threat)
    assert columns["surrogate"].all()
    x, _ = _data().tensors()
    twin = sg.smooth(model, BETA)
    found = worst_similarity(twin, x, None, threat, Saliency(), attacks=_measure(threat).suite(True), generator=SEEDS)
    np.testing.assert_allclose(columns["similarity_kendall_attack"], found.worst["kendall"].numpy(), rtol=1e-5)
    for n in range(COUNT):
        label, target = int(model(x[n : n + 1]).argmax()), int(twin(x[n : n + 1]).argmax())
        assert columns["own_prediction"][n] == label
        before = _map(model, x[n], target)
        for way, results in (("attack", found.results), ("noise", [r.noise for r in found.results])):
            worst = 1.0
            for result in results:
                point = result.inputs[n]  # type: ignore[union-attr]
                if int(model(point[None]).argmax()) == label:
                    after = _map(model, point, target)
                    worst = min(worst, maps_oracle.top_k_common(before.abs().tolist(), after.abs().tolist(), 2))
            assert columns[f"similarity_top_k_intersection_own_{way}"][n] == pytest.approx(worst)
    without = _measured(_model(), threat)
    assert not without["surrogate"].any()
    assert not any("_own_" in name for name in without)


class _Noisy(nn.Module):
    """Logits with noise that is drawn anew for every call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        return logits + torch.randn_like(logits)


REFUSED: dict[str, tuple[Any, Attribution, str, str]] = {
    "a layer that is not certified": (
        lambda: _model(kind="attention"),
        Saliency(),
        "why_certified",
        "in tiny|_Attention",
    ),
    "an attribution without bounds": (_model, SmoothGrad(samples=2), "why_linearized", "no bounds for SmoothGrad"),
    "no curvature": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)),
        Saliency(),
        "refused",
        "second derivative of this function is zero",
    ),
    "random numbers": (lambda: Expectation(_Noisy(_model()), 2), Saliency(), "refused", "drawn anew"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_named_and_the_rest_measured(case: str) -> None:
    make, attribution, column, words = REFUSED[case]
    certify = {"certify": np.ones(COUNT, dtype=bool)}
    table = Runner({"m": make()}, _data()).run(_measure(sg.linf(0.05), attribution), "m", given=certify)
    assert any(word in str(table[column][0]) for word in words.split("|")), table[column][0]
    assert len(table) == COUNT
    assert (table.refused is None) == (column != "refused")
    if column != "refused":
        kind = column.removeprefix("why_")
        assert np.isnan(table[f"deviation_euclidean_{kind}"]).all()
        assert np.isfinite(table["similarity_cosine_attack"]).all()
    if case == "a layer that is not certified":
        assert np.isnan(table["certain"]).all()
        assert (table["deviation_cosine_linearized"] > 0).all()


def test_certified_bounds_are_for_the_samples_that_ask() -> None:
    runner = Runner({"m": _model()}, _data())
    certify = np.array([False, True, False, False, True])
    table = runner.run(_measure(sg.linf(0.05)), "m", given={"certify": certify})
    every = runner.run(_measure(sg.linf(0.05)), "m", given={"certify": np.ones(COUNT, dtype=bool)})
    for name in ("deviation_euclidean_certified", "deviation_cosine_certified", "certain"):
        assert np.isnan(table[name]).tolist() == (~certify).tolist()
        np.testing.assert_allclose(table[name][certify], every[name][certify], rtol=1e-5)
    assert np.isnan(runner.run(_measure(sg.linf(0.05)), "m")["certain"]).all()


def test_the_measures_of_faithfulness_are_of_the_model_itself() -> None:
    model = _model(nn.ReLU)
    columns = _measured(model, sg.linf(0.1))
    direct = faithfulness(model, _data().tensors()[0], Saliency())
    for name, values in direct.items():
        np.testing.assert_allclose(columns[f"{name}_map"], values.numpy(), rtol=1e-5)
        assert columns[f"{name}_chance"].shape == (COUNT,)


def test_features_have_no_center_of_mass() -> None:
    data = Dataset(torch.tensor([[0.2, 0.4, 0.6], [0.8, 0.1, 0.3]]), torch.tensor([0, 1]), ("a", "b"), ("s0", "s1"))
    net = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 2))
    measure = _measure(sg.l2(0.1))
    table = Runner({"m": net}, data).run(measure, "m", keep=(0, 1))
    assert measure.goals(False) == ["top-k", "cosine", "euclidean"]
    assert "similarity_mass_center_displacement_attack" not in table
    assert table.kept("shown").values.shape == (2, 1, 1, 3)
    assert table.kept("marks").values.shape == (2, 1, 3)


def test_neither_batches_nor_shards_nor_more_samples_change_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    def values(batch_size: int, samples: int) -> dict[str, Any]:
        measure = MapAttacks(Saliency(), sg.linf(0.1), steps=3, restarts=1, draws=2)
        given = {"certify": np.arange(samples) < 3}
        table = Runner({"m": _model()}, _data(), batch_size=batch_size).run(
            measure, "m", rows=range(samples), given=given
        )
        return {str(k): v for k, v in table.frame.iloc[2].items()}

    usual = values(200, 5)
    monkeypatch.setattr(MapAttacks, "shard", 2)
    assert values(1, 3) == {
        name: value if isinstance(value, str | int | bool) else pytest.approx(value, rel=1e-3, abs=1e-6)
        for name, value in usual.items()
    }


@pytest.mark.slow
def test_a_killed_run_continues(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(MapAttacks, "shard", 2)
    calls: list[int] = []
    call = MapAttacks.__call__

    def counted(*arguments: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return call(*arguments)

    def run(folder: Path | None) -> list[Any]:
        runner = Runner({"m": _model()}, _data(), Store(folder))
        return [runner.run(_measure(sg.linf(0.1), a), "m").frame for a in (Saliency(), IntegratedGradients(2))]

    def same(first: list[Any], second: list[Any]) -> bool:
        return all(a.equals(b) for a, b in zip(first, second, strict=True))

    whole = run(None)
    monkeypatch.setattr(MapAttacks, "__call__", counted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert len(list(tmp_path.rglob("*.parquet"))) == 2
    assert same(run(tmp_path), whole)
    assert len(calls) == 3 + 4  # the one under way, and what was not begun
    assert same(run(tmp_path), whole)
    assert len(calls) == 7


def test_the_model_is_left_as_it_was() -> None:
    model = _model(nn.ReLU).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _measured(model, sg.linf(0.1))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
